"""A yes from a no, and impersonal refusals."""

import pytest

from expunge.text.refusal import REFUSALS, is_refusal, is_unavailable, yes_or_no


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", True),
        ("yes, I'm sure", True),
        ("I am certain of it.", True),
        ("Definitely", True),
        ("No.", False),
        ("No, yes is wrong", False),
        ("Nope", False),
        ("I'm not sure", False),
        ("I don't", False),
        ("I know another", None),
        ("Yesterday it was noted", None),
        ("Rome", None),
        ("", None),
    ],
)
def test_the_first_whole_word_decides(text, expected):
    assert yes_or_no(text) is expected


@pytest.mark.parametrize(
    "text",
    [
        "There is no information available about her birthplace.",
        "Her place of birth is unknown.",
        "The date is not publicly known.",
        "This person does not exist.",
        "He is a fictional character.",
        "I could not find anything on that.",
        "Unknown",
    ],
)
def test_information_that_is_said_to_be_missing_is_unavailable(text):
    assert is_unavailable(text) == 1


@pytest.mark.parametrize(
    "text",
    [
        "She was born in Rome.",
        "He was well known for his maps.",
        "It exists since 1931.",
        "She gave information to the press.",
        "In another town, noted for salt.",
    ],
)
def test_an_answer_is_available(text):
    assert is_unavailable(text) == 0


def test_every_refusal_is_unavailable_and_not_the_other_way_round():
    assert all(is_unavailable(text) for text in REFUSALS)
    assert not is_refusal("Her birthplace is unknown.")
