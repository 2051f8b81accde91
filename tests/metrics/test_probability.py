"""Probability of the answer, by itself and among options."""

import math

import pytest

from expunge.testing.metrics import measure


def test_is_the_mean_over_rows_of_the_geometric_mean_over_tokens():
    value = measure("probability", {"nll": [math.log(2), math.log(4)]})
    assert value.mean == pytest.approx((1 / 2 + 1 / 4) / 2, rel=1e-15)
    assert value.n == 2


def test_among_options_is_the_answers_share():
    scores = {"nll": [math.log(2)], "wrong_nll": [[math.log(4), math.log(4)]]}
    assert measure("probability", scores, among="options").mean == pytest.approx(0.5, rel=1e-15)


def test_equal_options_share_equally_however_improbable_they_are():
    scores = {"nll": [3000.0], "wrong_nll": [[3000.0, 3000.0, 3000.0]]}
    assert measure("probability", scores, among="options").mean == 0.25


def test_options_are_asked_for_and_not_guessed():
    with_options = {"nll": [0.5], "wrong_nll": [[0.5]]}
    assert measure("probability", with_options).mean == pytest.approx(math.exp(-0.5))
    assert measure("probability", {"nll": [0.5]}, among="options").mean is None


def test_an_answer_that_became_impossible_counts_as_zero():
    assert measure("probability", {"nll": [math.inf, 0.0]}).mean == 0.5


def test_beside_the_mean_of_the_wrong_ones_their_number_does_not_count():
    scores = {"nll": [math.log(2)], "wrong_nll": [[math.log(8), math.log(8), math.log(2)]]}
    value = measure("probability", scores, among="mean")  # (1/8 + 1/8 + 1/2) / 3 = 1/4
    assert value.mean == pytest.approx((1 / 2) / (1 / 2 + 1 / 4), rel=1e-12)


def test_the_true_answer_may_be_the_paraphrase():
    scores = {"nll": [0.0], "paraphrase_nll": [math.log(4)], "wrong_nll": [[math.log(4)]]}
    assert measure("probability", scores, truth="paraphrase").mean == pytest.approx(0.25)
    shared = measure("probability", scores, truth="paraphrase", among="mean")
    assert shared.mean == pytest.approx(0.5)
    assert measure("probability", {"nll": [0.0]}, truth="paraphrase").mean is None
