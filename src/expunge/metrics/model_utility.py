"""Model utility: what the model can still do, as one number that no single loss can hide in.

Definition (u_1..u_k the parts, each in [0, 1]):
    MU = k / sum_j (1 / u_j)            harmonic mean; 0 when any part is 0
    TOFU's nine parts: {probability, ROUGE-L recall, truth ratio} x {retain, real authors, world}

Reference: TOFU: A Task of Fictitious Unlearning for LLMs (2024).

Departs from the paper: a zero says which part it comes from. On a model that never knew a part
(a tiny model asked about real authors) the number is 0 whatever was forgotten and means nothing.

Meaning: 1 is a model that loses nothing of what the parts ask. A harmonic mean follows its
smallest part, so a method cannot pay for ruined world knowledge with a perfect retain set. Read
it beside the original's: a model that never knew a part has no utility to lose there.

Example:
    >>> from expunge.testing import measure
    >>> parts = {"retain": 0.5, "authors": 1.0, "world": 0.25}
    >>> round(measure("model-utility", {"parts": parts}).mean, 6)
    0.428571
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import asked, table, unmeasurable
from expunge.numbers.harmonic import harmonic

CARD = {
    "id": "model-utility",
    "kind": "metric",
    "summary": "Harmonic mean of what the model can still do.",
    "paper": "TOFU: A Task of Fictitious Unlearning for LLMs (2024)",
    "needs": ["parts"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "none beyond its parts",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The harmonic mean of the parts.

    Args:
        scores: ``parts``: name of a part -> its number in [0, 1]; None where it was not measured.
        params: Nothing to set.
        reference: Not used.

    Returns:
        The mean, the parts, and a note naming the parts that are 0 when the mean is.
    """
    parts = table(scores, "parts")
    lacking = [name for name in asked(scores, "parts") if name not in parts]
    if lacking or not parts:
        return unmeasurable(f"{', '.join(lacking) or 'every part'} was not measured")
    return harmonic(parts)
