"""Exact memorisation: at how many places of the answer the model's first choice is the true token.

Definition (y_1..y_n the answer's tokens without the closing one, teacher forced):
    EM = (1/n) sum_t [argmax_t = y_t]

Reference: Preserving Privacy Through Dememorization (2023); in the form of OpenUnlearning:
Accelerating LLM Unlearning via Unified Benchmarking (2025).

Departs from the paper: nothing.

Meaning: 1 says that every token of the answer would be said by a model that is given all tokens
before it. A retrained model is far from 0: names of months, articles and the end of long names
follow from what stands before them. Compare with the reference, never with 0. It moves when a
single token does, so it is finer than a comparison of whole answers.

Example: three of four tokens, then all of two.

    >>> from expunge.testing import measure
    >>> measure("exact-memorisation", {"token_hit": [[1, 0, 1, 1], [1, 1]]}).mean
    0.875
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import average, table
from expunge.numbers.membership import READY

CARD = {
    "id": "exact-memorisation",
    "kind": "metric",
    "summary": "Share of the answer's tokens that are the model's first choice.",
    "paper": "OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025)",
    "needs": ["token_hit"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "one forward pass a row",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Exact memorisation, mean over rows.

    Args:
        scores: ``token_hit``: for each answer token whether it is the model's first choice, the
            closing token left out; or ready values as ``score``, as published logs hold them.
        params: Nothing to set.
        reference: Not used.

    Returns:
        The mean in [0, 1]; every row counts once, however long its answer.
    """
    if READY in scores:
        return average(table(scores, READY), scores, READY)
    shares = {row: fmean(hits) for row, hits in table(scores, "token_hit").items()}
    return average(shares, scores, "token_hit")
