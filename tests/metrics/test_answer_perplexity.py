"""Answer perplexity: a mean of means, not of tokens."""

from math import log

import pytest

from expunge.core.measuring import measured
from expunge.testing.metrics import measure

ROWS = {"token_logp": [[-log(2)], [-log(8), -log(4), -log(16)]]}


def test_every_answer_counts_once_however_long():
    corpus = 1024 ** (1 / 4)
    assert measure("answer-perplexity", ROWS).mean == pytest.approx(4.0)
    assert measure("answer-perplexity", ROWS).mean != pytest.approx(corpus)


def test_rows_are_losses_and_give_the_number_again():
    value = measured("answer-perplexity", ROWS).value
    assert list(value.per_row.values()) == pytest.approx([log(2), log(8)])
    assert value.interval == pytest.approx((2.0, 8.0))


def test_a_ruined_model_is_not_infinite_but_not_measurable():
    value = measure("answer-perplexity", {"token_logp": [[-1e4]]})
    assert value.mean is None
    assert "beyond any number" in value.note


def test_certain_answers_have_perplexity_one():
    assert measure("answer-perplexity", {"token_logp": [[0.0, 0.0]]}).mean == 1.0
