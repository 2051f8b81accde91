"""Dynamic deviation score: level and upward moves."""

import pytest

from expunge.core.measuring import Units, measured
from expunge.testing.metrics import measure


def dds(curve, **params):
    return measure("dynamic-deviation", {"deviation": curve}, **params)


def test_closed_form_of_the_paper():
    assert dds({"1": 20.0, "2": 30.0, "3": 25.0}).mean == 27.5


def test_a_plain_list_is_a_curve():
    assert dds([20.0, 30.0, 25.0]).mean == 27.5


def test_a_constant_curve_is_its_level():
    assert dds([40.0] * 5).mean == 40


def test_only_upward_moves_count():
    value = dds([30.0, 20.0, 10.0])
    assert (value.mean, value.parts["rise"], value.parts["worst"]) == (20, 0, 30)


def test_ten_comes_after_two():
    curve = {"10": 30.0, "2": 20.0, "1": 10.0}
    assert dds(curve).parts["rise"] == 10
    assert list(dds(curve).per_row) == ["1", "2", "10"]


def test_beta_weighs_the_moves():
    assert dds([20.0, 30.0, 25.0], beta=0.0).mean == 25
    assert dds([20.0, 30.0, 25.0], beta=2.0).mean == 35


def test_one_request_is_its_level_and_says_so():
    value = dds([20.0])
    assert value.mean == 20
    assert "one request" in value.note


def test_no_interval_is_made_up_by_drawing_steps():
    for steps in (1, 2, 8):
        scores = {"deviation": {str(t): float(t) for t in range(1, steps + 1)}}
        assert measured("dynamic-deviation", scores, units=Units({}, 0)).value.interval is None


@pytest.mark.parametrize("curve", [{}, {"start": 1.0}])
def test_what_is_no_curve_is_not_measurable(curve):
    assert dds(curve).mean is None
