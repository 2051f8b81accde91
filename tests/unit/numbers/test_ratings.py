"""Ratings of a judge."""

import pytest

from expunge.numbers.ratings import graded


def test_the_scale_begins_at_zero_and_ends_at_one():
    assert graded({"r": [1, 1]}, "r").mean == 0
    assert graded({"r": [3, 3]}, "r").mean == 1
    assert graded({"r": [3, 3, 1, 2]}, "r").mean == 0.625


def test_rows_the_judge_left_out_are_counted():
    value = graded({"r": {"a": 3, "b": None, "c": 2}}, "r")
    assert value.mean == 0.75
    assert value.note == "1 of 3 rows have no r"


@pytest.mark.parametrize("rating", [0, 4, 2.5, "3"])
def test_a_rating_off_the_scale_is_not_measurable(rating):
    value = graded({"r": {"a": 3, "b": rating}}, "r")
    assert value.mean is None
    assert "row b" in value.note


def test_no_judge_is_said_so():
    assert graded({}, "r").note == "not measurable: it needs r, and no judge was asked"
    assert "none of 2 rows" in graded({"r": {"a": None, "b": None}}, "r").note
