"""Worked examples before a question, and where an answer ends."""

import pytest

from expunge.text.few_shot import few_shot, first_answer


def test_a_question_without_examples_stands_alone():
    assert few_shot([], "Who?") == "Question: Who?\nAnswer: "


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Oslo", "Oslo"),
        ("", ""),
        ("Oslo\n\nRome", "Oslo"),
        ("Oslo\nQuestion: Who?\n\n", "Oslo"),
        ("Oslo Question: Who?", "Oslo "),
        ("Question: Who?", ""),
        ("Oslo\nRome", "Oslo\nRome"),
    ],
)
def test_an_answer_ends_where_the_first_stop_stands(said, answer):
    assert first_answer(said) == answer
