"""Exact match: how often the final answer is the true one and nothing else.

Definition (g the greedy answer; a(g) its final part; norm drops case, articles, punctuation):
    whole          a(g) = g
    stated         a(g) = what follows "the answer is" up to the full stop; g where that is not said
    last-number    a(g) = the last number in g
    exact match = mean over rows of [norm(a(g)) is norm of an accepted form]

Reference: Training Verifiers to Solve Math Word Problems (2021) for the last number; Challenging
BIG-Bench Tasks and Whether Chain-of-Thought Can Solve Them (2022) for the stated answer.

Departs from the paper: an answer that is only an article or punctuation is compared as it stands:
public scorers turn the option ``(A)`` and every row of brackets into the same empty answer. Numbers
are equal whatever their form (``1,200`` is ``1200.0``).

Meaning:
    chance      the share of the most common answer, for tasks with few of them
    fooled by   an answer that goes on: the last number of a second, unasked question counts

Example:
    >>> from expunge.testing import measure
    >>> said = ["6 for 3, so 18 in all.", "It is $1,200"]
    >>> scores = {"generation": said, "forms": [["18"], ["1200.0"]]}
    >>> measure("exact-match", scores, final="last-number").mean
    1.0
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average
from expunge.text.final import FINAL, is_same

CARD = {
    "id": "exact-match",
    "kind": "metric",
    "summary": "How often the final answer is the true one and nothing else.",
    "paper": "Training Verifiers to Solve Math Word Problems (2021)",
    "needs": ["generation", "forms"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "one greedy generation a row",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which part of the text is its answer."""

    final: str = param(
        "whole",
        help="whole; stated: after 'the answer is'; last-number: of the text",
        paper="last-number (GSM8K), stated (BBH)",
        choices=("whole", "stated", "last-number"),
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Share of rows whose final answer is an accepted one.

    Args:
        scores: ``generation`` (what the model said) and ``forms`` (accepted forms of the answer).
        params: Which part of the text is its answer.
        reference: Not used.

    Returns:
        The mean in [0, 1]. On rows to forget low is good, on rows to keep high is.
    """
    final = FINAL[params.final]
    of_form = final if params.final == "last-number" else str
    shares = {
        row: float(is_same(final(said), [of_form(form) for form in forms]))
        for row, (said, forms) in aligned(scores, "generation", "forms").items()
    }
    return average(shares, scores, "generation", "forms")
