"""n-grams: entropy in bits, and repetition."""

import math

import pytest

from expunge.text.ngrams import entropy, ngrams, pieces, repeated


def test_words_and_punctuation_are_pieces():
    assert pieces("It's 1.5, isn't it?") == ["It's", "1", ".", "5", ",", "isn't", "it", "?"]


def test_entropy_of_unequal_shares():
    parts = ["a", "b", "a", "b", "a", "c"]
    shares = [2 / 5, 2 / 5, 1 / 5]
    assert entropy(parts, 2) == pytest.approx(-sum(p * math.log2(p) for p in shares), rel=1e-12)


def test_too_short_a_text_has_no_entropy_and_no_repetition():
    assert entropy(["a"], 2) == 0
    with pytest.raises(ValueError, match="no 2-gram"):
        repeated(["a"], 2)


def test_repetition_counts_what_stood_there_before():
    assert repeated(["a", "a", "a", "a", "a"], 2) == 0.75
    assert repeated(["a", "b", "c", "d"], 2) == 0
    assert ngrams(["a", "b", "c"], 3) == [("a", "b", "c")]
