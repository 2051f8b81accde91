"""Harmonic means of other numbers."""

import pytest

from expunge.numbers.harmonic import harmonic, harmonic_of


def test_by_hand():
    assert harmonic({"a": 1.0, "b": 0.5, "c": 0.25}).mean == pytest.approx(3 / 7)


def test_a_zero_makes_it_zero_and_is_named():
    value = harmonic({"a": 1.0, "b": 0.0})
    assert value.mean == 0
    assert value.note == "0 because b is 0"


def test_a_number_below_zero_is_not_measurable():
    assert harmonic({"a": -0.1, "b": 1.0}).mean is None
    assert harmonic({"a": float("nan"), "b": 1.0}).mean is None


def test_missing_and_unknown_parts_are_named():
    missing = harmonic_of({"parts": {"a": 1.0, "b": None}}, ("a", "b"), dict)
    assert missing.note == "not measurable: b was not measured"
    unknown = harmonic_of({"parts": {"a": 1.0, "z": 1.0}}, ("a",), dict)
    assert "z is none of its parts: a" in unknown.note


def test_the_form_comes_before_the_mean_and_the_note_stays():
    value = harmonic_of(
        {"parts": {"a": 0.5}}, ("a",), lambda parts: {"a": parts["a"] / 2}, note="halved"
    )
    assert (value.mean, value.parts, value.note) == (0.25, {"a": 0.25}, "halved")
