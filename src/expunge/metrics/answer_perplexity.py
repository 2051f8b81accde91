"""Answer perplexity: how surprised the model is by the true answers, each answer counting once.

Definition (y_i1..y_in the tokens of answer i after its question, the end left out):
    m_i = -(1/n_i) sum_t log p(y_it | x_i, y_i<t)
    perplexity = exp(mean_i m_i)

Reference: To Forget or Not? Towards Practical Knowledge Unlearning for Large Language Models
(2024).

Departs from the paper: nothing. It is not the perplexity of a corpus: there long answers weigh
more, here every answer weighs the same.

Meaning:
    1           every token of every answer is certain
    retrained   the perplexity of such answers to a model that never read them; on rows to forget a
                value far beyond it is damage, not forgetting
    fooled by   one ruined answer: the mean is taken of logarithms but has no upper end

Example:
    Mean losses of ln 2 over one token and of ln 8 over three: 4, where a corpus would give 5.66,
    the fourth root of 2 * 8 * 4 * 16.

    >>> from math import log
    >>> from expunge.testing import measure
    >>> logp = {"token_logp": [[-log(2)], [-log(8), -log(4), -log(16)]]}
    >>> round(measure("answer-perplexity", logp).mean, 6)
    4.0
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from expunge.core.bootstrap import FloatArray
from expunge.core.results import Value
from expunge.core.scores import average, table, unmeasurable

CARD = {
    "id": "answer-perplexity",
    "kind": "metric",
    "summary": "Exponential of the mean loss of the answers, each counting once.",
    "paper": "To Forget or Not? Towards Practical Knowledge Unlearning for LLMs (2024)",
    "needs": ["token_logp"],
    "better": "high",
    "range": [1.0, None],
    "access": "logits",
    "cost": "one forward pass a row",
    "maturity": "beta",
    "version": 1,
}

LARGEST = 700.0
"""Mean loss in nats beyond which its exponential is no number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Perplexity over answers.

    Args:
        scores: ``token_logp``: log-probabilities of the answer's tokens, the end left out, nats.
        params: Nothing to set.
        reference: Not used.

    Returns:
        The perplexity, at least 1; its rows are mean losses in nats. On rows to forget a high
        value is what is wanted, on rows to keep a low one.
    """
    losses = {row: -fmean(logp) for row, logp in table(scores, "token_logp").items()}
    value = average(losses, scores, "token_logp")
    if value.mean is None:
        return value
    if value.mean > LARGEST:
        return unmeasurable(f"the mean loss is {value.mean:.3g} nats a token: beyond any number")
    return replace(value, mean=math.exp(value.mean))


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The exponential of the mean loss."""
    return {"mean": float(np.exp(rows.mean()))}
