"""Agg: one number for a leaderboard, in which nothing can be bought with something else.

Definition (HM the harmonic mean, 0 if any part is 0):
    Agg = HM(Mem, Priv, Util)
    without a retrained model: HM(Mem, Util)

Reference: OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025).

Departs from the paper: nothing. The note says when privacy was left out.

Meaning: high only if all parts are: nothing is remembered, membership shows no more than in the
retrained model, and the model works. The two-part form is for choosing among models before there
is a retrained one; it does not compare with the three-part form.

Example: a published row of the SimNPO method, printed there as .53.

    >>> from expunge.testing import measure
    >>> parts = {"memorisation": 0.32, "privacy": 0.63, "utility": 1.0}
    >>> round(measure("unlearning-score", {"parts": parts}).mean, 4)
    0.5252
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.numbers.harmonic import harmonic_of

CARD = {
    "id": "unlearning-score",
    "kind": "metric",
    "summary": "Forgetting, privacy and utility as one number (harmonic mean).",
    "paper": "OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025)",
    "needs": ["parts"],
    "better": "high",
    "range": [0.0, None],
    "access": "logits",
    "cost": "none beyond its parts",
    "maturity": "beta",
    "version": 1,
}

PARTS = ("memorisation", "privacy", "utility")
WITHOUT_REFERENCE = ("memorisation", "utility")


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Whether privacy counts."""

    privacy: bool = param(
        True, help="whether the privacy part, which needs a retrained model, counts", paper=True
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The harmonic mean of the three scores.

    Args:
        scores: ``parts``: ``memorisation``, ``privacy`` (where it counts) and ``utility``; None
            where it was not measured.
        params: Whether privacy counts.
        reference: Not used.

    Returns:
        The mean and its parts.
    """
    if params.privacy:
        return harmonic_of(scores, PARTS, dict)
    return harmonic_of(scores, WITHOUT_REFERENCE, dict, note="privacy is left out")
