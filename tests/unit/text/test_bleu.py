"""BLEU of single texts: counted by hand, its smoothing and its penalty."""

import math

import pytest

from expunge.text.overlap import bleu


def test_the_same_text_has_all_of_it():
    assert bleu("one two three four five", "one two three four five") == pytest.approx(1.0)


def test_counted_by_hand():
    # 3/4, 2/3, 1/2; no 4-gram: 1 / (2 * 1)
    assert bleu("a b c d", "a b c e") == pytest.approx((3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)
    # 5/6, 3/5, 1/4; no 4-gram of three: 1 / (2 * 3)
    said, wanted = "the cat sat on a mat", "the cat lay on a mat"
    assert bleu(said, wanted) == pytest.approx((5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25)


def test_a_word_counts_no_more_often_than_it_is_wanted():
    # 1/3; then 0/2, 0/1, and no 4-gram: 1 / (2 * 2), 1 / (4 * 1), 1 / (8 * 1)
    found = bleu("the the the", "the cat sat")
    assert found == pytest.approx((1 / 3 * 1 / 4 * 1 / 4 * 1 / 8) ** 0.25)


def test_brevity_is_penalised_and_length_is_not():
    short, long = bleu("a b c d", "a b c d e f g h"), bleu("a b c d e f g h", "a b c d")
    assert short == pytest.approx(math.exp(1 - 8 / 4))
    assert long == pytest.approx((4 / 8 * 3 / 7 * 2 / 6 * 1 / 5) ** 0.25)


def test_it_is_not_symmetric():
    assert bleu("a b c d", "a b c d e f g h") != bleu("a b c d e f g h", "a b c d")


@pytest.mark.parametrize("said", ["", "  ", "x y z", "A B C D"])
def test_without_a_common_word_it_is_nothing(said):
    assert bleu(said, "a b c d") == 0.0
    assert bleu("a b c d", said) == 0.0


def test_case_and_commas_are_part_of_a_word():
    assert bleu("Paris, France", "Paris France") < 0.6
    assert bleu("  a   b\nc d ", "a b c d") == pytest.approx(1.0)
