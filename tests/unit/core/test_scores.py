"""Readings as tables: what is left out, what is matched, and what is not averaged."""

import math

import pytest

from expunge.core.errors import ExpungeError
from expunge.core.scores import aligned, asked, average, matched, table
from expunge.testing.metrics import measure


def test_rows_without_a_value_are_left_out_and_still_counted():
    scores = {"wrong_nll": {"a": [1.0], "b": [], "c": None}}
    assert table(scores, "wrong_nll") == {"a": [1.0]}
    assert list(asked(scores, "wrong_nll")) == ["a", "b", "c"]


def test_silence_is_a_value():
    assert table({"generation": {"a": ""}}, "generation") == {"a": ""}


def test_lists_are_named_by_their_places():
    assert table({"nll": [0.5, 0.25]}, "nll") == {"0": 0.5, "1": 0.25}


def test_a_reading_that_was_not_made_is_empty():
    assert table({}, "nll") == {}


def test_rows_are_aligned_by_name():
    scores = {"nll": {"a": 1, "b": 2}, "reply": {"b": "B", "c": "C"}}
    assert aligned(scores, "nll", "reply") == {"b": (2, "B")}


def test_one_broken_row_is_not_averaged_away():
    value = average({"a": 1.0, "b": math.nan}, {"nll": [0, 0]}, "nll")
    assert value.mean is None
    assert value.note == "not measurable: 1 of 2 rows are not a number (b)"


def test_nothing_to_average_is_not_zero():
    value = average({}, {"nll": {}}, "nll")
    assert (value.mean, value.note) == (None, "not measurable: no row has nll")


def test_models_measured_on_other_rows_do_not_match():
    with pytest.raises(ExpungeError) as refusal:
        matched({"a": 1.0}, {"b": 1.0}, allow_unmatched=False)
    assert refusal.value.code == "E-DATA-013"
    matched({"a": 1.0}, {"b": 1.0}, allow_unmatched=True)
    matched({"a": 1.0}, {"a": 2.0}, allow_unmatched=False)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_share_that_is_not_finite_makes_the_mean_unmeasurable(broken):
    value = average({"a": 0.5, "b": broken}, {"nll": [0.5, broken]}, "nll")
    assert value.mean is None
    assert "1 of 2 rows are not a number (b)" in value.note


@pytest.mark.parametrize("broken", [None, math.nan, math.inf])
@pytest.mark.parametrize(
    ("metric", "parts"),
    [
        ("robustness", {"original": 0.9, "relearning": 0.4}),
        ("unlearning-effectiveness", {"original": 0.9, "accuracy": 0.4}),
        ("forget-degree", {"model": 30.0, "reference": 40.0}),
        ("model-utility", {"retain": 0.4, "world": 0.5}),
        ("task-aggregate", {"forget.rouge": 0.1, "retain.rouge": 0.9}),
    ],
)
def test_a_part_that_is_no_number_was_not_measured(metric, parts, broken):
    assert measure(metric, {"parts": parts}).mean is not None
    for name in parts:
        value = measure(metric, {"parts": parts | {name: broken}})
        assert value.mean is None, f"{value.mean} with {name} = {broken}"
        assert f"{name} was not measured" in value.note or f"the {name} was not" in value.note
