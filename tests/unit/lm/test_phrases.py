"""Phrases: which tokens carry a value."""

import numpy as np
import pytest

from expunge.lm.phrases import grouped_logp, own_tokens_mean, phrase_logp
from expunge.lm.subject import Scored, Subject
from expunge.requests.rows import Row, Turn
from expunge.testing.tiny import tiny_model, tiny_tokenizer


def scored(spans, ends=True):
    logp = -np.arange(1.0, len(spans) + 1)
    return Scored(logp, np.zeros(len(spans), dtype=bool), spans, ends)


def test_the_end_is_no_part_of_a_value():
    assert own_tokens_mean(scored([(0, 4), (4, 6), (6, 6)]), " Romeo") == -1.5


def test_a_space_that_stands_alone_is_not_scored():
    assert own_tokens_mean(scored([(0, 1), (1, 4), (4, 6), (6, 6)]), " Romeo") == -2.5


def test_a_space_inside_a_value_is_scored():
    assert own_tokens_mean(scored([(0, 1), (1, 3), (3, 4), (4, 6)], ends=False), " Le X!") == -3.0


def test_an_answer_of_one_blank_still_has_a_number():
    assert own_tokens_mean(scored([(0, 1), (1, 1)]), " ") == -1.0


@pytest.fixture(scope="module")
def subject():
    tokenizer = tiny_tokenizer(["The town is Arden or Belm or far Esk."] * 3, vocab=320)
    return Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer)


def test_groups_come_back_under_their_rows_and_names(subject):
    row = Row(id="r", prompt="The town is", completion=" Arden")
    found = grouped_logp(subject, [(row, {"near": [" Belm", " Esk"], "far": [" far"], "none": []})])
    alone = phrase_logp(subject, [Turn("The town is", text) for text in (" Belm", " Esk", " far")])
    assert found["r"]["near"] + found["r"]["far"] == pytest.approx(alone, abs=1e-5)
    assert "none" not in found["r"]


def test_nothing_to_score_is_nothing(subject):
    assert phrase_logp(subject, []) == []
    assert grouped_logp(subject, []) == {}
