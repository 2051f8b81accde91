"""KnowUnDo score: knowledge that must go against knowledge of the same kind that must stay.

Definition (acc = mean over answers of the share of tokens that are the model's first choice):
    unlearn success    US = 100 - 100 acc(unlearn)
    retention success  RS = 100 acc(retention)
    score = (US + RS) / 2                                                       in percent

Reference: To Forget or Not? Towards Practical Knowledge Unlearning for Large Language Models
(2024).

Departs from the paper: nothing.

Meaning:
    50          a model that knows everything, and one that knows nothing: read the two parts
    retrained   well below 100, because function words of an unknown answer are first choices too
    fooled by   a method that ruins the form of all answers gains in US what it loses in RS

Example:
    Half of the tokens to forget are still first choices, and nine tenths of those to keep.

    >>> from expunge.testing import measure
    >>> value = measure("knowundo-score", {"parts": {"unlearn": 0.5, "retention": 0.9}})
    >>> value.mean, value.parts["unlearn_success"], value.parts["retention_success"]
    (70.0, 50.0, 90.0)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import table, unmeasurable

CARD = {
    "id": "knowundo-score",
    "kind": "metric",
    "summary": "Mean of unlearn success and retention success, in percent.",
    "paper": "To Forget or Not? Towards Practical Knowledge Unlearning for LLMs (2024)",
    "needs": ["parts"],
    "better": "high",
    "range": [0.0, 100.0],
    "access": "logits",
    "cost": "none beyond its two accuracies",
    "maturity": "beta",
    "version": 1,
}

PARTS = ("unlearn", "retention")


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The score and its two successes.

    Args:
        scores: ``parts``: token accuracy in [0, 1] on ``unlearn`` and on ``retention`` rows.
        params: Nothing to set.
        reference: Not used.

    Returns:
        Percent; the parts ``unlearn_success`` and ``retention_success``, percent too.
    """
    parts = table(scores, "parts")
    lacking = [name for name in PARTS if name not in parts]
    if lacking:
        return unmeasurable(f"the accuracy on {' and '.join(lacking)} rows was not measured")
    gone, kept = 100 - 100 * parts["unlearn"], 100 * parts["retention"]
    successes = {"unlearn_success": gone, "retention_success": kept}
    return Value(mean=(gone + kept) / 2, parts=successes)
