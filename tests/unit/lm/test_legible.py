"""Turns a model can read."""

import pytest

from expunge.lm.legible import left_out, legible
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn
from expunge.testing.tiny import tiny_model, tiny_tokenizer

ASKED = ({"role": "user", "content": "Where?"},)


@pytest.mark.parametrize("chat", [False, True])
def test_what_is_too_long_empty_or_beyond_the_template_is_left_out(chat):
    tokenizer = tiny_tokenizer(["Where? There."], chat=chat)
    subject = Subject(tiny_model("llama", vocab=len(tokenizer), positions=64), tokenizer)
    turns = {
        "fits": Turn("Where?", " There."),
        "running": Turn("", "There there.", running=True),
        "long": Turn("Where?", " There." * 60),
        "empty": Turn("Where?", ""),
        "talk": Turn(ASKED, "There."),
    }
    assert list(legible(subject, turns)) == ["fits", "running", *(["talk"] if chat else [])]


def test_a_note_only_where_something_is_left_out():
    assert left_out(3, 3, "are too long") == ""
    assert left_out(3, 1, "are too long") == "2 of 3 rows are too long and are left out"
