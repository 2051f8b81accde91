"""Forget efficacy: how far the model's answers are from what it should have forgotten.

Definition (of a row: p mean probability of the true answer's tokens, R ROUGE-L of the written
answer, c cosine of the two texts, at least 0):
    efficacy = 1 - mean over rows of (p + R + c) / 3

Reference: Standard vs. Modular Sampling: Best Practices for Reliable LLM Unlearning (2025).

Departs from the paper: its code exchanges the two texts of ROUGE-L, which makes its recall a
precision; ``rouge=precision`` does the same. Its cosine comes from an embedding model, ours from
the pieces of the words. That the formula is this one was read in its code.

Meaning: 0 is an answer known and said word for word. A retrained model stays well below 1, since
answers repeat their questions. A broken model reaches 1: read it beside the utility of the rows to
keep, and beside `gibberish`.

Example: tokens of probability 1/2, half of the words said, spelled like half of the answer.

    >>> from math import log
    >>> from expunge.testing import measure
    >>> scores = {"token_logp": [[log(0.5), log(0.5)]], "reply": ["red owl"]}
    >>> value = measure("forget-efficacy", {**scores, "generation": ["red elk"]})
    >>> value.parts["probability"], value.parts["rouge"], round(value.parts["similarity"], 6)
    (0.5, 0.5, 0.5)
    >>> round(value.mean, 6)
    0.5
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import average
from expunge.text.closeness import KINDS, READINGS, closeness_of

CARD = {
    "id": "forget-efficacy",
    "kind": "metric",
    "summary": "Distance of the answers from the forgotten ones: probability, wording, cosine.",
    "paper": "Standard vs. Modular Sampling: Best Practices for Reliable LLM Unlearning (2025)",
    "needs": ["token_logp", "generation", "reply"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "one forward pass and one greedy generation of 50 tokens a row",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which ROUGE-L is taken."""

    rouge: Literal["recall", "precision"] = param(
        "recall",
        help="recall of the true answer's words, or the precision that the paper's code forms",
        paper="recall; precision in its code",
        choices=("recall", "precision"),
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The efficacy, mean over rows.

    Args:
        scores: ``token_logp`` (nats), ``generation`` and ``reply`` of the rows to forget.
        params: Which ROUGE-L.
        reference: Not used.

    Returns:
        The mean in [0, 1], with the means of the three numbers among the parts.
    """
    found = closeness_of(scores, params.rouge)
    value = average({row: 1 - fmean(three) for row, three in found.items()}, scores, *READINGS)
    if value.mean is None:
        return value
    means = {kind: fmean(three[at] for three in found.values()) for at, kind in enumerate(KINDS)}
    return replace(value, parts=means)
