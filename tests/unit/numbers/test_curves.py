"""Numbers along steps."""

import numpy as np
import pytest

from expunge.numbers.curves import in_order, numbered, steps_of


def test_steps_are_ordered_by_number_and_not_by_letter():
    curve, why = steps_of({"u": {"10": 3.0, "2": 2.0, "1": 1.0}}, "u")
    assert list(curve.items()) == [("1", 1.0), ("2", 2.0), ("10", 3.0)]
    assert why == ""
    assert numbered(curve) == {"1": 1.0, "2": 2.0, "10": 10.0}


def test_what_is_no_step_is_named():
    assert "'first'" in steps_of({"u": {"first": 1.0}}, "u")[1]
    assert "twice" in steps_of({"u": {"1": 1.0, "01": 2.0}}, "u")[1]
    assert steps_of({}, "u") == ({}, "no step has u")


def test_a_resample_of_steps_is_no_curve():
    assert in_order(np.array([1.0, 1.0]), np.array([2.0, 2.0])) is None
    assert in_order(np.array([5.0, 7.0]), np.array([2.0, 1.0])).tolist() == [7.0, 5.0]


@pytest.mark.parametrize(
    ("broken", "told"), [(None, "step 2 has no utility"), (float("nan"), "of step 2 is not")]
)
def test_a_step_without_a_number_is_not_jumped_over(broken, told):
    curve, why = steps_of({"utility": {"1": 0.5, "2": broken, "3": 0.4}}, "utility")
    assert not curve
    assert told in why
