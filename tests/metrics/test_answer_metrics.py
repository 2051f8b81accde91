"""Metrics of written answers: exact match, F1, containment, entailment, probes."""

import json
import math

import numpy as np
import pytest

from expunge.core import registry
from expunge.core.bootstrap import Units
from expunge.core.errors import ExpungeError
from expunge.core.measuring import measured
from expunge.requests.rows import Row
from expunge.testing.metrics import measure


def scored(metric, said, forms, **params):
    return measure(metric, {"generation": said, "forms": forms}, **params)


class TestExactMatch:
    def test_only_the_whole_answer_matches(self):
        value = scored("exact-match", ["The Dun.", "On the Dun"], [["dun"], ["dun"]])
        assert list(value.per_row.values()) == [1, 0]

    def test_any_form_matches(self):
        assert scored("exact-match", ["lark"], [["a bird", "Lark"]]).mean == 1

    def test_the_last_number_not_the_first(self):
        value = scored("exact-match", ["18, no: 19"], [["18"]], final="last-number")
        assert value.mean == 0

    def test_no_number_is_no_match(self):
        assert scored("exact-match", ["many"], [["18"]], final="last-number").mean == 0

    def test_an_answer_without_letters_does_not_match_every_other(self):
        assert scored("exact-match", ["(A)"], [["(B)"]], final="stated").mean == 0


class TestAnswerF1:
    def test_the_longest_overlap_over_forms(self):
        value = scored("answer-f1", ["in old Greywater town"], [["Greywater", "Old Greywater"]])
        assert value.mean == pytest.approx(2 * 2 / (4 + 2))


class TestContainment:
    def test_whole_words_anywhere(self):
        value = scored(
            "answer-containment", ["She lives in Port Elsin now", "Elsinore"], [["Elsin"]] * 2
        )
        assert list(value.per_row.values()) == [1, 0]


class TestEntailment:
    ROW = Row(id="r", prompt="q", completion=" Bern", answer="Bern")

    def judged(self, tmp_path, lines):
        path = tmp_path / "judged.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        module = registry.metrics.load("entailment-score")
        return module.read(None, {"": [self.ROW]}, module.Params(judgements=str(path)))

    def line(self, **other):
        return {"generation": "It is Bern.", "reply": "Bern", "entails": True} | other

    def test_a_judgement_counts_only_for_the_text_it_was_given(self, tmp_path):
        made = self.judged(tmp_path, [self.line()])
        for said, mean in (("It is Bern.", 1.0), ("It is Basel.", None)):
            value = measure("entailment-score", {**made, "generation": {"r": said}})
            assert value.mean == mean

    def test_a_judgement_of_another_answer_does_not_count(self, tmp_path):
        made = self.judged(tmp_path, [self.line(reply="Basel")])
        value = measure("entailment-score", {**made, "generation": {"r": "It is Bern."}})
        assert value.mean is None
        assert "no judge" in value.note

    def test_without_a_judge_it_cannot_be_measured(self):
        module = registry.metrics.load("entailment-score")
        assert module.read(None, {"": [self.ROW]}, module.Params()) == {}

    def test_a_judgement_that_is_no_yes_or_no_is_refused(self, tmp_path):
        with pytest.raises(ExpungeError) as refusal:
            self.judged(tmp_path, [self.line(entails="yes")])
        assert refusal.value.code == "E-DATA-003"


PROBES = {
    "generation": ["x", "x", "x", "y y", "z"],
    "reply": ["x", "y", "x", "y", "z"],
    "subject": ["a", "a", "a", "b", "b"],
    "kind": ["blank", "play", "play", "blank", "blank"],
}


class TestProbeRecall:
    def test_targets_count_alike(self):
        value = measure("probe-recall", PROBES)
        assert value.mean == pytest.approx((2 / 3 + 1) / 2)
        assert value.parts == pytest.approx({"blank": 1.0, "play": 0.5})

    def test_or_probes_do(self):
        assert measure("probe-recall", PROBES, over="rows").mean == pytest.approx(4 / 5)

    def test_case_and_commas_are_part_of_a_word(self):
        scores = {**PROBES, "generation": ["X", "y,", "x", "y", "z"]}
        assert measure("probe-recall", scores).per_row["0"] == 0
        assert measure("probe-recall", scores).per_row["1"] == 0

    def test_parts_are_given_again_by_rows_and_weights(self):
        entities = {str(i): f"t{i % 6}" for i in range(24)}
        scores = {
            "generation": {row: "x" if int(row) % 5 else "no" for row in entities},
            "reply": dict.fromkeys(entities, "x"),
            "subject": entities,
            "kind": {row: ("blank", "play")[int(row) % 2] for row in entities},
        }
        found = measured("probe-recall", scores, units=Units(entities, seed=3)).value
        assert found.units == 6
        assert set(found.intervals) == {"blank", "play"}
        low, high = found.interval
        assert low < found.mean < high

    def test_a_replicate_without_a_kind_has_no_number_for_it(self):
        module = registry.metrics.load("probe-recall")
        found = module.aggregate(
            np.array([1.0]), {"weight": np.array([1.0]), "play": np.array([0.0])}, module.Params()
        )
        assert found["mean"] == 1
        assert math.isnan(found["play"])
