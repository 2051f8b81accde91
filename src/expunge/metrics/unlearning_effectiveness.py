"""Unlearning effectiveness: how much of what the original knew above chance is gone.

Definition (acc the model's accuracy on what is to be forgotten, acc_o the original's):
    UE = 1 - clip((acc - chance) / (acc_o - chance), 0, 1)

Reference: LLM Unlearning Under the Microscope (2025).

Departs from the paper: INFERRED: the paper reports raw accuracies; the normalisation is ours, and
the raw numbers stand beside it among the parts.

Meaning:
    1           at chance or below; 0: at the original's level or above
    fooled by   ruin: a model that says nothing sensible has 1, so read it beside utility

Example:
    From .65 to .35 with chance at .25: three quarters of the way.

    >>> from expunge.testing import measure
    >>> parts = {"accuracy": 0.35, "original": 0.65}
    >>> round(measure("unlearning-effectiveness", {"parts": parts}).mean, 12)
    0.75
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import asked, table, unmeasurable

CARD = {
    "id": "unlearning-effectiveness",
    "kind": "metric",
    "summary": "How much of what the original knew above chance is gone.",
    "paper": "LLM Unlearning Under the Microscope (2025)",
    "needs": ["parts"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "none beyond its parts",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What guessing gets."""

    chance: float = param(0.25, help="accuracy of a guess; 0 for open answers", low=0, high=1)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The share that is gone.

    Args:
        scores: ``parts``: ``accuracy`` of the model and ``original``, that of the original.
        params: What guessing gets.
        reference: Not used.

    Returns:
        A number in [0, 1], high is good; the raw accuracies among the parts.
    """
    parts = table(scores, "parts")
    if lacking := {"accuracy", "original", *asked(scores, "parts")} - parts.keys():
        return unmeasurable(f"{', '.join(sorted(lacking))} was not measured")
    known = parts["original"] - params.chance
    if known <= 0:
        told = f"the original is at {parts['original']:.3g}, no better than a guess"
        return Value(mean=None, parts=parts, note=f"not measurable: {told}")
    left = (parts["accuracy"] - params.chance) / known
    return Value(mean=1 - min(1.0, max(0.0, left)), parts=parts)
