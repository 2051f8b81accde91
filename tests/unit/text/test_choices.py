"""Letters as answers: the one a text names, and never one inside a word."""

import pytest

from expunge.text.choices import letter, listed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", 1),
        ("b.", 1),
        ("(C) because it floats", 2),
        ("B because A sinks", 1),
        ("I think so. The best answer is: (D).", 3),
        ("The answer is (B). The best answer is: (C).", 1),
        ("Surely D.", 3),
        ("Because it floats", None),
        ("A cat sat on it", None),
        ("The answer is a cat", None),
        ("I don't know", None),
        ("Both are right", None),
        ("E", None),
        ("", None),
    ],
)
def test_the_option_a_text_names(text, expected):
    assert letter(text, 4) == expected


def test_options_stand_under_one_another_with_their_names():
    assert listed(("alpha", "beta"), ("one", "two")) == "alpha. one\nbeta. two"


def test_a_name_too_few_is_an_error():
    with pytest.raises(ValueError, match="argument"):
        listed(("alpha",), ("one", "two"))
