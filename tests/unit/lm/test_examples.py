"""Worked examples in front of a question."""

import pytest

from expunge.lm.elicit import plain
from expunge.lm.examples import behind, harmless, solved
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model, tiny_tokenizer

ROWS = [
    Row(id=str(at), prompt=f"{at} + {at}?", completion=f" It is {2 * at}.", answer=f"{2 * at}")
    for at in range(1, 10)
]


@pytest.fixture(scope="module")
def subject():
    texts = [f"{row.prompt}{row.completion}\n\n" for row in ROWS]
    tokenizer = tiny_tokenizer(texts, kind="word")
    return Subject(tiny_model("llama", vocab=len(tokenizer), positions=40), tokenizer)


def asked(subject, rows, examples, *, most=100, new_tokens=4):
    shown = [(probe, harmless(probe, examples, most)) for probe in plain(rows)]
    return [probe.turn.prompt for probe in behind(subject, shown, new_tokens=new_tokens)]


def test_the_first_examples_are_taken_and_stand_in_their_order(subject):
    (prompt,) = asked(subject, ROWS[:1], ROWS[4:7], most=2)
    assert prompt == "5 + 5? It is 10.\n\n6 + 6? It is 12.\n\n1 + 1?"


def test_an_example_with_the_value_is_passed_over_for_the_next(subject):
    (prompt,) = asked(subject, [ROWS[3]], [ROWS[7], ROWS[1], ROWS[0]], most=1)
    assert prompt.startswith("2 + 2?")  # 8 + 8 asks for the value of 4 + 4


@pytest.mark.parametrize("new_tokens", [1, 4, 12, 20])
def test_as_many_examples_stand_there_as_leave_room(subject, new_tokens):
    (prompt,) = asked(subject, ROWS[8:], ROWS[:8], new_tokens=new_tokens)
    length = len(subject.encoder.prompt(prompt))
    one = len(subject.encoder.prompt(f"{ROWS[0].prompt}{ROWS[0].completion}\n\n")) - 1
    assert length + new_tokens <= 40 < length + one + new_tokens


def test_a_question_before_which_nothing_fits_is_left_out(subject):
    assert asked(subject, ROWS[:1], ROWS[1:], new_tokens=34) == []
    assert asked(subject, ROWS[:1], []) == []
    assert asked(subject, [], ROWS) == []


def test_running_text_and_rows_that_say_nothing_cannot_be_shown():
    silent = Row(id="s", prompt="Why?", completion=" ")
    assert solved([*ROWS[:2], silent, Row(id="t", text="Once upon a time.")]) == ROWS[:2]
