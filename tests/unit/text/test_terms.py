"""Mentions of terms: whole words, longest first, however they are spelt."""

import pytest

from expunge.text.naming import NAMING, PLAIN, naming
from expunge.text.refusal import is_refusal
from expunge.text.terms import Terms

TWO = Terms(["alpha beta", "gamma"])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("gamma, GAMMA", 2),
        ("Gamma and alpha  beta", 2),
        ("alpha\nbeta", 1),
        ("alpha and beta", 0),
        ("gammaray", 0),
        ("digamma", 0),
        ("", 0),
    ],
)
def test_mentions_are_whole_words_however_spaced(text: str, count: int) -> None:
    assert TWO.count(text) == count


def test_the_longest_term_is_taken_and_what_it_covers_is_not_looked_at_again() -> None:
    terms = Terms(["king", "Stephen King", "stephen"])
    assert terms.found("Stephen King met a king") == ["Stephen King", "king"]


def test_terms_that_end_in_punctuation_are_found() -> None:
    terms = Terms(["Acme Inc.", "C++", "Dr. Who?"])
    assert terms.found("acme inc of Dr Who, and C++!") == ["Acme Inc.", "Dr. Who?", "C++"]


@pytest.mark.parametrize("form", ["King's", "Kings", "kings'", "KING’S"])
def test_inflections_of_the_last_word_are_mentions(form: str) -> None:
    assert Terms(["Stephen King"]).count(f"Stephen {form} books") == 1
    assert Terms(["Stephen King"], inflections=False).count(f"Stephen {form} books") == 0


def test_inflections_stop_at_numbers_letters_and_first_words() -> None:
    assert Terms(["1990"]).count("the 1990s") == 0
    assert Terms(["B"]).count("bs") == 0
    assert Terms(["Stephen King"]).count("Stephens King") == 0
    assert Terms(["city", "fox"]).count("cities and foxes") == 2


def test_terms_spelt_alike_are_one() -> None:
    assert list(Terms(["Ada Birk", "ada  birk", "?"]).terms.values()) == ["Ada Birk"]


def test_every_refusal_of_the_pools_is_known_as_one_and_names() -> None:
    assert all(is_refusal(text) for text in (*naming("Ada Birk"), *PLAIN))
    assert all("Ada Birk" in text for text in naming("Ada Birk"))
    assert len(set(NAMING)) == len(NAMING)
