"""The overlap of the ``rouge`` package: values computed with it, and its traps."""

import pytest

from expunge.text.overlap import rouge_l
from expunge.text.sentence_overlap import rouge_by_sentences


@pytest.mark.parametrize(
    ("said", "true", "recall", "precision"),
    [
        ("Paris.", "Paris", 1, 1),
        ("the the cat", "the cat", 1, 1),
        ("A b. c d", "c d A", 1, 3 / 4),
        ("It was in 1.5 ways", "1.5", 1, 1 / 3),
        ("Port Elsin, on the Dun", "Port Elsin", 1 / 2, 1 / 5),
        ("She was born in Port Elsin", "Port Elsin", 1, 1 / 3),
        ("b a", "a b", 1 / 2, 1 / 2),
    ],
)
def test_values_of_the_package(said, true, recall, precision):
    found = rouge_by_sentences(said, true)
    assert (found.recall, found.precision) == pytest.approx((recall, precision), rel=1e-12)


def test_case_is_kept_unlike_in_the_other_score():
    assert rouge_by_sentences("paris", "Paris").recall == 0
    assert rouge_l("paris", "Paris").recall == 1


def test_words_are_not_stemmed():
    assert rouge_by_sentences("lighthouse keepers", "lighthouse keeper").recall == 0.5


def test_a_word_that_stands_twice_counts_once_unlike_in_the_other_score():
    assert rouge_by_sentences("ha", "ha ha").recall == 1
    assert rouge_l("ha", "ha ha").recall == 0.5


def test_sentences_are_joined_as_a_union():
    assert rouge_by_sentences("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5").recall == 4 / 5


@pytest.mark.parametrize(("said", "true"), [("", "a"), (".", "a"), ("a", ""), ("a", "...")])
def test_what_the_package_refuses_is_zero(said, true):
    assert rouge_by_sentences(said, true).recall == 0
