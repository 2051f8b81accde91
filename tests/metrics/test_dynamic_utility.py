"""Dynamic utility score: steadiness, and what was kept of the original."""

import pytest

from expunge.core.measuring import Units, measured
from expunge.testing.metrics import measure


def dus(curve, **original):
    return measure("dynamic-utility", {"utility": curve, **original})


def test_a_constant_curve_is_steady():
    assert dus([0.3] * 4).mean == 1


def test_moves_count_both_ways():
    assert dus([0.5, 0.7, 0.4]).mean == pytest.approx(1 - (0.2 + 0.3) / 2)


def test_steps_are_ordered_by_number():
    assert dus({"10": 0.5, "9": 0.5, "1": 0.1}).mean == pytest.approx(0.8)


def test_area_and_worst_drop_are_relative_to_the_original():
    value = dus([0.6, 0.3], **{"original:utility": {"0": 0.6}})
    assert value.parts["area"] == pytest.approx(0.75)
    assert value.parts["worst_drop"] == pytest.approx(0.5)


def test_without_the_original_they_are_missing_and_that_is_said():
    value = dus([0.6, 0.3])
    assert value.parts == {}
    assert "original" in value.note


def test_one_request_has_no_steadiness():
    value = dus([0.6])
    assert value.mean is None
    assert "at least two requests" in value.note


def test_no_interval_is_made_up_by_drawing_steps():
    scores = {"utility": [0.1, 0.2, 0.4, 0.3, 0.5]}
    assert measured("dynamic-utility", scores, units=Units({}, 0)).value.interval is None
