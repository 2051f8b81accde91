"""Knowledge forgetting: entities gone, or contradicted."""

import pytest

from expunge.testing.metrics import measure

LONG = "She taught with Ada Birk in Rome until the war of 1914 began."


def rate(said, forms, **more):
    params = {name: more.pop(name) for name in ("threshold",) if name in more}
    return measure("knowledge-forgetting", {"generation": said, "forms": forms, **more}, **params)


def test_a_short_answer_is_there_or_gone_in_every_form():
    assert rate(["In Roma.", "In Bari.", ""], [["Rome", "Roma"]] * 3).mean == pytest.approx(2 / 3)


def test_below_the_threshold_is_gone_and_at_it_is_not():
    said = ["Rome it was.", "Ada Birk in Rome."]
    assert rate(said, [[LONG]] * 2).mean == 0
    assert rate(said, [[LONG]] * 2, threshold=0.5).mean == 0.5
    assert rate(["Rome"], [["Rome"]], threshold=1.0).mean == 0


def test_a_contradiction_is_forgetting_though_the_entity_is_named():
    value = rate(["Not in Rome."], [["Rome"]], contradicts=[True])
    assert value.mean == 1
    assert value.parts == {"coverage": 1.0, "contradictions": 1.0}


def test_without_a_judge_the_note_says_so_and_nothing_is_reported_as_judged():
    value = rate(["In Rome."], [["Rome"]])
    assert "by entities alone" in value.note
    assert value.parts == {"coverage": 1.0}


def test_rows_the_judge_left_out_are_not_taken_for_agreement():
    value = rate(["Rome", "Bari"], [["Rome"]] * 2, contradicts={"0": True})
    assert value.mean is None
    assert "1 rows have no contradicts" in value.note


def test_rows_without_any_entity_are_left_out_and_counted():
    value = rate(["x", "Rome"], [["it was a very long walk to the old mill"], ["Rome"]])
    assert (value.mean, value.n) == (0, 1)
    assert "1 of 2 rows" in value.note
