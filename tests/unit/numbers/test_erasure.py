"""How much is erased: the shared arithmetic, its clips and its refusals."""

import math

import numpy as np
import pytest

from expunge.core.errors import ExpungeError
from expunge.numbers.erasure import by_weight, depth, mean_depth, weighted


def test_closed_forms():
    assert depth([0.5, 1.0, 0.02], [0.25, 1.5, 0.4], 0.05) == pytest.approx(0.8333333, abs=1e-7)
    assert depth([0.3, 0.9], [0.3, 0.9], 0.05) == 1.0
    assert depth([0.3, 0.9], [0.0, 0.0], 0.05) == 0.0
    # 1/4 of a weight of 2, all of a weight of 1: 1.5 / 3
    assert depth([2.0, 1.0], [0.5, 3.0], 0.05) == pytest.approx(0.5)


def test_knowing_better_than_the_original_is_not_less_than_nothing():
    assert depth([1.0, 1.0], [-5.0, 1.0], 0.05) == 0.5


def test_layers_at_or_below_the_threshold_do_not_count():
    assert depth([0.05, 1.0], [9.0, 0.5], 0.05) == 0.5
    assert depth([0.05, 0.02, -1.0], [9.0, 9.0, 9.0], 0.05) is None


def test_layers_must_match():
    with pytest.raises(ValueError, match="shorter"):
        depth([1.0, 1.0], [1.0], 0.05)


def test_rows_that_no_layer_holds_are_left_out_and_said():
    now, expected = {"d": {"a": [0.5], "b": [0.5], "c": None}}, {"d": {"a": [1.0], "b": [0.01]}}
    value = mean_depth(now, expected, "d", 0.05)
    assert value.per_row == {"a": 0.5}
    assert value.note == ("1 of 3 rows do not hold their value; 1 of 3 rows are held by no layer")
    assert value.parts == {"layer-0": 0.5}


def test_parts_are_the_means_over_rows_that_a_layer_holds():
    now = {"d": [[0.5, 0.0], [1.0, 0.2]]}
    expected = {"d": [[1.0, 0.01], [1.0, 0.4]]}
    assert mean_depth(now, expected, "d", 0.05).parts == {"layer-0": 0.75, "layer-1": 0.5}


@pytest.mark.parametrize(
    ("now", "expected", "why"),
    [
        ({"d": [[1.0]]}, None, "none was given"),
        ({}, {"d": [[1.0]]}, "no row has d"),
        ({"d": [[1.0]]}, {}, "no row has d"),
        ({"d": [[1.0]]}, {"d": [[0.05]]}, "the original does not know these rows"),
    ],
)
def test_what_cannot_be_measured_says_why(now, expected, why):
    value = mean_depth(now, expected, "d", 0.05)
    assert value.mean is None
    assert value.note.startswith("not measurable")
    assert why in value.note


def test_other_rows_are_refused():
    with pytest.raises(ExpungeError, match="E-DATA-013"):
        mean_depth({"d": {"a": [1.0]}}, {"d": {"b": [1.0]}}, "d", 0.05)


def test_weighted_means():
    assert by_weight(np.array([1.0, 0.0]), np.array([3.0, 1.0])) == 0.75
    assert weighted({"x": 1.0, "y": 0.0}, {"y": 1.0, "x": 3.0}) == 0.75
    assert math.isnan(by_weight(np.ones(2), np.zeros(2)))
