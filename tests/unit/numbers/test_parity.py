"""Closeness to a retrained model: the same on both sides of it."""

import pytest

from expunge.numbers.parity import as_retrained, between, closeness


@pytest.mark.parametrize(
    ("value", "target", "expected"),
    [(30, 40, 0.75), (60, 40, 0.5), (90, 40, 0.0), (80, 40, 0.0), (0, 40, 0.0), (40, 40, 1.0)],
)
def test_it_falls_evenly_to_both_sides_and_never_below_0(value, target, expected):
    assert closeness(value, target) == pytest.approx(expected, abs=1e-12)


def test_nothing_is_close_to_a_target_of_0():
    assert closeness(0, 0) == 0.0
    assert closeness(3, 0) == 0.0


@pytest.mark.parametrize(
    ("requests", "target"), [(0, 90), (60, 78), (120, 66), (180, 54), (240, 42), (300, 30)]
)
def test_the_line_goes_from_the_original_to_the_reference(requests, target):
    assert between(90, 30, requests / 300) == pytest.approx(target)


def test_after_all_requests_the_original_is_not_looked_at():
    value = as_retrained({"parts": {"model": 30, "reference": 40}}, 300, 300)
    assert value.mean == pytest.approx(0.75)
    assert value.parts == {"quality": 30, "target": 40}


def test_before_all_requests_it_needs_the_original():
    value = as_retrained({"parts": {"model": 30, "reference": 40}}, 60, 300)
    assert value.mean is None
    assert "original" in value.note


def test_what_is_missing_is_named():
    value = as_retrained({"parts": {"model": 30, "reference": None}}, 300, 300)
    assert value.mean is None
    assert "reference" in value.note


def test_a_target_of_0_is_said():
    value = as_retrained({"parts": {"model": 30, "reference": 0.0}}, 300, 300)
    assert value.mean == 0.0
    assert "target is 0" in value.note


def test_more_requests_than_the_reference_forgot_are_refused():
    parts = {"model": 30, "reference": 40, "original": 90}
    value = as_retrained({"parts": parts}, 301, 300)
    assert value.mean is None
    assert "301" in value.note
