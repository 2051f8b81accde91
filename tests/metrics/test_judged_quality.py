"""Judged quality is in its own reading; the grades are tested with judged efficacy."""

from expunge.testing.metrics import measure


def test_grades_are_spread_over_zero_to_one():
    value = measure("judged-quality", {"quality_rating": {"a": 1, "b": 2, "c": 3}})
    assert value.per_row == {"a": 0.0, "b": 0.5, "c": 1.0}


def test_one_rating_is_not_taken_for_the_other():
    assert measure("judged-quality", {"privacy_rating": [3]}).mean is None
