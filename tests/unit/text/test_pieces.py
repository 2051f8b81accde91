"""Running text in pieces."""

import pytest

from expunge.text.pieces import pieces

TEXT = "  one two\n\nthree  four\tfive \n"


@pytest.mark.parametrize("words", [1, 2, 3, 4, 5, 6, 100])
def test_pieces_together_are_the_text_and_none_is_too_long(words):
    cut = pieces(TEXT, words)
    assert "".join(cut) == TEXT
    assert [len(piece.split()) for piece in cut[:-1]] == [words] * (len(cut) - 1)
    assert 1 <= len(cut[-1].split()) <= words


@pytest.mark.parametrize("text", ["", " \n"])
def test_no_words_no_pieces(text):
    assert pieces(text, 3) == []
