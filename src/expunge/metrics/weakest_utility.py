"""Weakest utility: the smallest of several utilities, so that none can pay for another.

Definition:    number = min over the parts that were measured

Reference: Standard vs. Modular Sampling: Best Practices for Reliable LLM Unlearning (2025), whose
rule is that every stratum of the rows to keep is looked at.

Departs from the paper: it prints its strata side by side; the minimum is ours.

Meaning: the utility of whatever suffered most. It is at least as low as any mean; compare models
that were measured on the same parts. Parts that could not be measured are named, not counted.

Example:
    >>> from expunge.testing import measure
    >>> measure("weakest-utility", {"parts": {"retain": 0.9, "neighbour": 0.4}}).mean
    0.4
    >>> measure("weakest-utility", {"parts": {"retain": 0.9, "neighbour": None}}).note
    'neighbour was not measured'
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import asked, table, unmeasurable

CARD = {
    "id": "weakest-utility",
    "kind": "metric",
    "summary": "The smallest of several utilities.",
    "paper": "Standard vs. Modular Sampling: Best Practices for Reliable LLM Unlearning (2025)",
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
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The smallest part.

    Args:
        scores: ``parts``: name -> utility in [0, 1], None where it was not measured.
        params: Nothing to set.
        reference: Not used.
    """
    parts = table(scores, "parts")
    lacking = [name for name in asked(scores, "parts") if name not in parts]
    if not parts:
        return unmeasurable("none of its parts was measured")
    note = f"{', '.join(lacking)} was not measured" if lacking else ""
    return Value(mean=float(min(parts.values())), parts=parts, note=note)
