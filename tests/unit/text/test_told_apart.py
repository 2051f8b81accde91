"""Naive Bayes on words: its formula, what it knows nothing of, and unseen texts."""

import math

import pytest

from expunge.text.told_apart import accuracy, tell_apart

KIND = ["mix the acid with salt", "heat the acid", "add salt to the acid"]
OTHERS = ["mix the flour with milk", "heat the oven", "add milk to the flour"]


def test_the_odds_are_the_smoothed_ratio_of_counts() -> None:
    told = tell_apart(["a a b"], ["b"])
    # features: a, b, (a a), (a b); counts 5 and 1, smoothing .5 each
    first, second = (2 + 0.5) / (5 + 2), (0 + 0.5) / (1 + 2)
    assert told.odds["a",] == pytest.approx(math.log(first / second))
    assert told.log_odds("zzz") == pytest.approx(told.prior) == pytest.approx(0.0)


def test_the_prior_is_that_of_the_texts() -> None:
    assert tell_apart(["x", "y", "z"], ["w"]).prior == pytest.approx(math.log(3))


def test_it_tells_texts_it_has_not_seen() -> None:
    told = tell_apart(KIND, OTHERS)
    assert told.log_odds("Pour the ACID.") > 0
    assert told.log_odds("Pour the milk.") < 0
    assert accuracy(KIND, OTHERS) > 0.8


def test_the_same_texts_under_both_names_are_not_told_apart() -> None:
    assert accuracy(KIND, KIND) <= 0.5
