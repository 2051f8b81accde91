"""Asking again: through a chat template, or written out."""

import pytest

from expunge.lm.dialogue import asked_of, follow_up, picked, question_of, spoken
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.testing.tiny import tiny_model, tiny_tokenizer

TEXTS = ["Question: Where?\nAnswer: In Rome.", "Are you sure? alpha beta gamma A B C D E Yes No"]


def subject(*, chat=False):
    tokenizer = tiny_tokenizer(TEXTS, chat=chat, vocab=300)
    return Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer)


def test_a_model_without_a_template_reads_the_dialogue_as_one_text():
    turn = Turn("Question: Where?\nAnswer:", "")
    again = follow_up(subject(), turn, " In Rome.\nQuestion: Who?", "Are you sure?")
    assert again.prompt == (
        "Question: Where?\nAnswer: In Rome.\n\nQuestion: Are you sure?\nAnswer:"
    )


def test_a_model_with_a_template_reads_messages_and_remembers_every_round():
    asked = subject(chat=True)
    again = follow_up(asked, Turn("Where?", ""), "Rome", "Sure?")
    third = follow_up(asked, again, "Yes", "Really?")
    assert [(m["role"], m["content"]) for m in third.prompt] == [
        ("user", "Where?"),
        ("assistant", "Rome"),
        ("user", "Sure?"),
        ("assistant", "Yes"),
        ("user", "Really?"),
    ]
    assert len(asked.ask([third], new_tokens=2)) == 1


def test_an_answer_ends_where_the_model_asks_itself():
    assert spoken(" In Rome. \nQuestion: Who?") == " In Rome."
    assert spoken("B)\n\n###\n\nQ: C)") == "B)"
    assert spoken("plain") == "plain"


def test_the_question_of_a_conversation_is_its_last_message():
    messages = ({"role": "system", "content": "x"}, {"role": "user", "content": "Who?"})
    row = Row(id="1", messages=(*messages, {"role": "assistant", "content": "Jo"}))
    assert question_of(row) == "Who?"
    assert asked_of(Row(id="2", prompt="p", completion="c", meta={"asked": "q"})) == "q"


@pytest.mark.parametrize("chat", [False, True])
def test_the_option_picked_is_the_one_with_the_largest_score(chat):
    asked = subject(chat=chat)
    prompts = ["Where? A or B or C.", "Sure? alpha or beta.\n\n"]
    names = [("A", "B", "C"), ("alpha", "beta")]
    space = "" if chat else " "
    expected = []
    for prompt, own in zip(prompts, names, strict=True):
        lead = "" if prompt.endswith("\n") else space
        logps = [
            float(one.logp[: one.text_tokens].sum())
            for one in asked.score([Turn(prompt, lead + name) for name in own])
        ]
        expected.append(logps.index(max(logps)))
    assert picked(asked, prompts, names) == expected
    assert picked(asked, [], []) == []
