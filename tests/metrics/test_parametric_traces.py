"""Parametric traces: which of the four numbers, and concepts without one."""

import pytest

from expunge.testing.metrics import measure

TRACES = {
    "trace_cosine": {"a": 1.0, "b": -1.0},
    "trace_distance": {"a": 0.0, "b": 3.0},
    "trace_jaccard": {"a": 1.0, "b": 0.5},
    "trace_related": {"a": 0.25, "b": None},
}


@pytest.mark.parametrize(
    ("score", "expected"), [("cosine", 0.0), ("distance", 1.5), ("jaccard", 0.75)]
)
def test_it_is_the_mean_of_the_number_asked_for(score, expected):
    value = measure("parametric-traces", TRACES, score=score)
    assert value.mean == expected
    assert value.per_row == TRACES[f"trace_{score}"]


def test_a_concept_without_related_tokens_is_left_out_and_said():
    value = measure("parametric-traces", TRACES, score="related")
    assert (value.mean, value.n) == (0.25, 1)
    assert value.note == "1 of 2 rows have no trace_related"
    none = TRACES | {"trace_related": {"a": None, "b": None}}
    assert "no strong token" in measure("parametric-traces", none, score="related").note


def test_without_the_original_it_cannot_be_measured():
    assert "it takes the original" in measure("parametric-traces", {}).note
