"""Final answers: numbers, stated answers, and when two are the same."""

import pytest

from expunge.text.final import best_f1, is_same, key, last_number, stated, token_f1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so it is 18.", "18"),
        ("5 + 13 = 18 in all", "18"),
        ("$1,200.50", "1200.5"),
        ("18.00", "18"),
        ("1,2,3", "3"),
        ("minus -4 degrees", "-4"),
        ("3-4", "4"),
        ("100", "100"),
        ("version v2", ""),
        ("none at all", ""),
    ],
)
def test_the_last_number(text, number):
    assert last_number(text) == number


def test_a_large_number_keeps_its_digits():
    assert last_number("30,000,000") == "30000000"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So the answer is (B). More.", "(B)"),
        ("The answer is 3.5. Done", "3.5"),
        ("yes", "yes"),
        ("the answer is open", "the answer is open"),
    ],
)
def test_the_stated_answer(text, answer):
    assert stated(text) == answer


def test_options_in_brackets_are_different_answers():
    assert not is_same("(B)", ["(A)"])
    assert not is_same("", ["(A)"])
    assert is_same(" (a).", ["(A)"])


def test_rows_of_brackets_are_different_answers():
    assert not is_same("] )", ["] }"])
    assert is_same("] )", ["] )"])


def test_articles_and_case_do_not_count():
    assert key("The Pike!") == key("pike")


def test_f1_of_words():
    assert token_f1("a pike in the dark lake", "the dark lake") == pytest.approx(2 * 2 / (4 + 2))
    assert token_f1("", "lake") == 0
    assert token_f1("lake lake", "lake") == pytest.approx(2 / 3)


def test_the_best_form_counts():
    assert best_f1("Pike", ["trout", "the pike"]) == 1
    assert best_f1("Pike", []) == 0
