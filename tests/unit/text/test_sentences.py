"""Where sentences end."""

import random

import pytest

from expunge.text.sentences import ends, spans


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        ("One", ["One"]),
        ("One. Two", ["One. ", "Two"]),
        ("One. ", ["One. "]),
        ('He said "no." Then he left!  Why?', ['He said "no." ', "Then he left! ", " Why?"]),
        ("St. Ives, Mrs. Hale, No. 4. Next", ["St. Ives, Mrs. Hale, No. 4. ", "Next"]),
        ("Is it g? It is.", ["Is it g? ", "It is."]),
        ("Mail a@b.org. Then wait", ["Mail a@b.org. ", "Then wait"]),
        ("1.5 and 2.5", ["1.5 and 2.5"]),
        ("One\n\nTwo\nThree", ["One\n\n", "Two\nThree"]),
        ("東京。大阪。", ["東京。", "大阪。"]),
    ],
)
def test_sentences_and_their_places(text, sentences):
    assert [text[a:b] for a, b in spans(text)] == sentences


def test_lines_end_sentences_where_that_is_wanted():
    text = "One\nTwo. Three"
    assert [text[a:b] for a, b in spans(text, lines=True)] == ["One\n", "Two. ", "Three"]


@pytest.mark.parametrize("lines", [False, True])
def test_an_end_stays_one_whatever_comes_and_the_spans_cover_the_text(lines):
    draw = random.Random(0)
    parts = ["a", "Dr", ".", "!", "?", '"', ")", " ", "\n", "\t", "。", "Word", "etc"]
    for _ in range(300):
        text = "".join(draw.choice(parts) for _ in range(40))
        whole = list(ends(text, lines=lines))
        for at in range(len(text)):
            known = list(ends(text[:at], lines=lines))
            assert known == whole[: len(known)]
        assert "".join(text[a:b] for a, b in spans(text, lines=lines)) == text
