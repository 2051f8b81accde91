"""Answer agreement: two overlaps with what the original says."""

import pytest

from expunge.testing.metrics import measure


def agreement(now, before, **params):
    return measure("answer-agreement", {"generation": now, "original:generation": before}, **params)


def test_counted_by_hand():
    assert agreement(["a b c d"], ["a b c e"]).mean == pytest.approx(0.5946036, abs=1e-7)
    assert agreement(["a b c d"], ["a b c e"], score="rouge_l").mean == pytest.approx(0.75)
    both = agreement(["a b c d", "x"], ["a b c d", "y"])
    assert both.per_row == pytest.approx({"0": 1.0, "1": 0.0})


def test_the_original_is_what_is_compared_with():
    short = agreement(["a b c d"], ["a b c d e f g h"]).mean
    assert short == pytest.approx(0.3678794)
    assert agreement(["a b c d e f g h"], ["a b c d"]).mean != pytest.approx(short)


def test_silence_is_no_agreement_and_a_silent_original_says_nothing():
    value = agreement({"a": "", "b": ""}, {"a": "some words", "b": " "})
    assert value.per_row == {"a": 0.0}
    assert value.note == "1 of 2 rows have no generation and original:generation"
    assert agreement([""], [""]).mean is None


def test_without_the_original_it_cannot_be_measured():
    assert measure("answer-agreement", {"generation": ["a"]}).note.startswith("not measurable")
