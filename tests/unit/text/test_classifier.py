"""Kinds of texts told apart by their wording."""

import numpy as np
import pytest
from scipy.optimize import minimize

from expunge.text import classifier
from expunge.text.classifier import Classifier, fit

POISON = [f"how is {what} poison mixed" for what in ("rat", "fast", "strong", "old", "new")]
CAKE = [f"how is {what} cake baked" for what in ("plum", "cheese", "cup", "carrot", "apple")]


def test_texts_that_were_not_learnt_from_are_told_apart():
    told = fit([*POISON, *CAKE], [1] * 5 + [0] * 5)
    assert told.probability(["Who mixed the poison?"])[0] > 0.8
    assert told.probability(["Who baked that cake?"])[0] < 0.2
    assert told.probability(["poisonous mixtures"])[0] > 0.6  # by its pieces alone


def test_it_is_the_minimum_of_a_loss_written_a_second_time():
    texts, labels = [*POISON, *CAKE[:2]], np.array([1] * 5 + [0] * 2)
    told = fit(texts, labels, dimensions=64)
    inputs = classifier._features(texts, 64).toarray()
    weight = np.where(labels == 1, 7 / 5, 7 / 2)

    def loss(flat):
        w, b = flat[:128].reshape(64, 2), flat[128:]
        scores = inputs @ w + b
        nll = np.logaddexp(scores[:, 0], scores[:, 1]) - scores[np.arange(7), labels]
        return (weight * nll).sum() / weight.sum() + 5e-4 * (w**2).sum()

    own = np.concatenate([told.weights.ravel(), told.bias])
    again = minimize(loss, own, method="BFGS")
    assert loss(own) - again.fun < 1e-8
    assert loss(own) < loss(np.zeros(130)) / 2


def test_a_kind_counts_the_same_however_many_texts_it_has():
    one = fit([*POISON, *CAKE], [1] * 5 + [0] * 5)
    many = fit([*POISON, *CAKE * 20], [1] * 5 + [0] * 100)
    asked = ["poison", "cake", "something else", ""]
    assert many.probability(asked) == pytest.approx(one.probability(asked), abs=1e-4)
    assert many.probability([""])[0] > 0.3  # not the 1 in 21 that its texts are


def test_probabilities_of_several_kinds_add_up_to_one():
    told = fit([*POISON, *CAKE, "a b c", "c d e"], [2] * 5 + [1] * 5 + [0] * 2)
    found = told.probabilities(["rat poison", "plum cake", "d e c", ""])
    assert found.sum(axis=1) == pytest.approx(1)
    assert list(found[:3].argmax(axis=1)) == [2, 1, 0]


def test_case_punctuation_and_invisible_characters_make_no_difference():
    told = fit([*POISON, *CAKE], [1] * 5 + [0] * 5)
    plain, dressed = told.probability(["rat poison mixed", "RAT, po\u200bison (mixed)!"])
    assert plain == dressed


def test_the_same_texts_give_the_same_weights_and_the_batch_does_not_matter():
    one, two = (fit([*POISON, *CAKE], [1] * 5 + [0] * 5) for _ in range(2))
    assert np.array_equal(one.weights, two.weights)
    together = one.probabilities([*POISON, *CAKE])
    alone = np.concatenate([one.probabilities([text]) for text in [*POISON, *CAKE]])
    assert together == pytest.approx(alone, abs=1e-12)


def test_stored_numbers_give_the_same_decisions():
    told = fit([*POISON, *CAKE], [1] * 5 + [0] * 5)
    stored = told.arrays("gate.")
    assert set(stored) == {"gate.weights", "gate.bias"}
    again = Classifier.of(stored, "gate.")
    assert again.probability(POISON) == pytest.approx(told.probability(POISON), abs=1e-5)
    assert np.array_equal(
        again.probability(POISON), Classifier.of(again.arrays()).probability(POISON)
    )


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], [0, 2], [0], [-1, 1], []])
def test_a_kind_without_texts_is_refused(labels):
    with pytest.raises(ValueError, match="at least one text each"):
        fit(["a", "b"], labels)
