"""Readings as tables: what is left out, what is matched, and what is not averaged."""

import math

import pytest

from expunge.core.errors import ExpungeError
from expunge.core.scores import aligned, asked, average, matched, table


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
