"""KnowUnDo score: percent of what went and of what stayed."""

import pytest

from expunge.testing.metrics import measure


def test_two_answers_with_three_of_four_and_one_of_two_tokens():
    hits = {"token_hit": [[1, 1, 0, 1], [1, 0]]}
    accuracy = measure("exact-memorisation", hits).mean
    value = measure("knowundo-score", {"parts": {"unlearn": accuracy, "retention": accuracy}})
    assert accuracy == 0.625
    assert value.parts == {"unlearn_success": 37.5, "retention_success": 62.5}


@pytest.mark.parametrize(
    ("unlearn", "retention", "expected"),
    [(0.0, 1.0, 100.0), (1.0, 1.0, 50.0), (0.0, 0.0, 50.0), (1.0, 0.0, 0.0), (0.3, 0.8, 75.0)],
)
def test_knowing_all_and_knowing_nothing_are_both_fifty(unlearn, retention, expected):
    parts = {"unlearn": unlearn, "retention": retention}
    assert measure("knowundo-score", {"parts": parts}).mean == pytest.approx(expected)


def test_half_a_score_is_not_measurable():
    value = measure("knowundo-score", {"parts": {"unlearn": 0.5}})
    assert value.mean is None
    assert "retention" in value.note
