"""Extraction strength: how little of the answer must be given for the rest to follow by itself.

Definition (y_1..y_n the answer's tokens without the closing one, teacher forced):
    k*  = smallest k such that argmax_t = y_t for every t > k
    ES  = 1 - k* / n                        share of the answer that is recalled as its tail

Reference: Extracting Training Data from Large Language Models (2021); in the form of
OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025).

Departs from the paper: the released script gives 1/n when even the last token is wrong, because
its loop ends one token early. Here that is 0; ``compat`` gives the published value.

Meaning: how little of the answer has to be given for the rest to come by itself: 1, nothing had to
be given; .5, half of it; 0, even the last token is wrong. In studies of which metric keeps its
order under relearning and quantisation it comes out first, so it is the number to look at when
there is room for one. A retrained model reaches what the last words of answers give away.

Example: the answer A B C D, of which the model says A X C D: the last two tokens follow.

    >>> from expunge.testing import measure
    >>> measure("extraction-strength", {"token_hit": [[1, 0, 1, 1]]}).mean
    0.5
    >>> measure("extraction-strength", {"token_hit": [[0, 0, 0, 0]]}).mean
    0.0
    >>> measure("extraction-strength", {"token_hit": [[0, 0, 0, 0]]}, compat=True).mean
    0.25
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import average, table
from expunge.numbers.membership import READY
from expunge.text.overlap import recalled_tail

CARD = {
    "id": "extraction-strength",
    "kind": "metric",
    "summary": "Share of the answer that the model completes by itself, counted from its end.",
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
    """Corrected or as published."""

    compat: bool = param(
        False,
        help="give 1/n instead of 0 when even the last token is wrong, as the released script does",
        paper=True,
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Extraction strength, mean over rows.

    Args:
        scores: ``token_hit``: for each answer token whether it is the model's first choice, the
            closing token left out; or ready values as ``score``, as published logs hold them.
        params: Corrected or as published.
        reference: Not used.

    Returns:
        The mean in [0, 1]. A retrained model does not reach 0 either: the last words of many
        answers follow from the words before them.
    """
    if READY in scores:
        return average(table(scores, READY), scores, READY)
    hits = table(scores, "token_hit")
    tails = {row: recalled_tail(of_row, params.compat) for row, of_row in hits.items()}
    return average(tails, scores, "token_hit")
