"""LUME: literal answers, the twelve numbers as one, and what the challenge adds to them."""

import pytest

from expunge.testing import measure


class TestLiteralMatch:
    def test_only_case_and_outer_spaces_are_overlooked(self):
        said = [" Elm Row\n", "Elm Row.", "elm  row", "the Elm Row", ""]
        value = measure("literal-match", {"generation": said, "reply": ["elm row"] * 5})
        assert list(value.per_row.values()) == [1, 0, 0, 0, 0]
        assert value.mean == pytest.approx(0.2)

    def test_it_is_stricter_than_the_match_of_words(self):
        said = {"generation": ["The Esk."], "reply": ["Esk"], "forms": [["Esk"]]}
        assert measure("literal-match", said).mean == 0.0
        assert measure("exact-match", said).mean == 1.0


class TestTaskAggregate:
    def test_twelve_numbers_by_hand(self):
        gone = {f"forget.{n}": 0.2 for n in range(6)}
        kept = {f"retain.{n}": 0.4 for n in range(6)}
        value = measure("task-aggregate", {"parts": gone | kept})
        assert value.mean == pytest.approx(12 / (6 / 0.8 + 6 / 0.4))

    def test_numbers_to_forget_are_turned_round_and_only_those(self):
        parts = {"forget.a": 0.25, "retain.a": 0.5}
        value = measure("task-aggregate", {"parts": parts})
        assert value.parts == {"forget.a": 0.75, "retain.a": 0.5}
        assert value.mean == pytest.approx(0.6)

    def test_the_untouched_model_has_0_and_the_note_says_why(self):
        value = measure("task-aggregate", {"parts": {"forget.a": 1.0, "retain.a": 1.0}})
        assert value.mean == 0.0
        assert "forget.a" in value.note

    @pytest.mark.parametrize(
        ("parts", "named"),
        [
            ({"forget.a": 0.1, "retain.a": None}, "retain.a"),
            ({"forget.a": 0.1}, "forget and retain"),
            ({"forget.a": 0.1, "retain.a": 0.1, "mmlu": 0.5}, "mmlu"),
            ({"forget.a": 1.5, "retain.a": 0.1}, "forget.a"),
            ({}, "forget and retain"),
        ],
    )
    def test_what_is_missing_or_does_not_belong_is_named(self, parts, named):
        value = measure("task-aggregate", {"parts": parts})
        assert value.mean is None
        assert named in value.note


class TestLumeScore:
    @pytest.mark.parametrize(
        ("auc", "membership"), [(0.5, 1.0), (1.0, 0.0), (0.0, 0.0), (0.75, 0.5), (0.25, 0.5)]
    )
    def test_an_attack_that_overshoots_counts_like_one_that_finds_members(self, auc, membership):
        parts = {"tasks": 0.6, "auc": auc, "mmlu": 0.3}
        value = measure("lume-score", {"parts": parts})
        assert value.parts["membership"] == pytest.approx(membership)
        assert value.mean == pytest.approx((0.6 + membership + 0.3) / 3)

    @pytest.mark.parametrize("missing", ["tasks", "auc", "mmlu"])
    def test_it_is_not_made_of_less_than_three(self, missing):
        parts = {"tasks": 0.6, "auc": 0.5, "mmlu": 0.3} | {missing: None}
        value = measure("lume-score", {"parts": parts})
        assert value.mean is None
        assert missing in value.note
