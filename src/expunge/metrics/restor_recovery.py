"""RESTOR recovery: how much of what corrupted documents destroyed has come back.

Definition (acc = accuracy on the corrupted facts, of the unlearned, corrupted and clean model):
    recovery = (acc_unlearned - acc_corrupted) / (acc_clean - acc_corrupted)

Reference: RESTOR: Knowledge Recovery in Machine Unlearning (2024).

Departs from the paper: it reports the three accuracies; the ratio is ours. They stand in the parts.

Meaning:
    1           the knowledge the clean model had is back; what retraining without the documents
                gives, up to noise
    0           forgetting the documents brought nothing back
    below 0     the method destroyed true knowledge too, as gradient ascent does
    fooled by   a small gap between clean and corrupted: look at its interval before its value

Example:
    The clean model answers .9, the corrupted one .3 and the unlearned one .6.

    >>> from expunge.testing import measure
    >>> parts = {"clean": 0.9, "corrupted": 0.3, "unlearned": 0.6}
    >>> round(measure("restor-recovery", {"parts": parts}).mean, 6)
    0.5
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import table, unmeasurable

CARD = {
    "id": "restor-recovery",
    "kind": "metric",
    "summary": "Share of the accuracy lost to corrupted documents that came back.",
    "paper": "RESTOR: Knowledge Recovery in Machine Unlearning (2024)",
    "needs": ["parts"],
    "better": "high",
    "range": [None, None],
    "access": "text",
    "cost": "none beyond the three accuracies",
    "maturity": "beta",
    "version": 1,
}

PARTS = ("clean", "corrupted", "unlearned")


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The share of the lost accuracy that came back.

    Args:
        scores: ``parts``: the accuracies ``clean``, ``corrupted`` and ``unlearned``.
        params: Nothing to set.
        reference: Not used.

    Returns:
        The ratio, not bounded; not measurable where the corruption cost no accuracy.
    """
    parts = table(scores, "parts")
    lacking = [name for name in PARTS if name not in parts]
    if lacking:
        return unmeasurable(f"the accuracy of the {', '.join(lacking)} model was not measured")
    gap = parts["clean"] - parts["corrupted"]
    if gap == 0:
        return unmeasurable(
            f"the clean and the corrupted model are equally accurate ({parts['clean']:.3g})"
        )
    recovery = (parts["unlearned"] - parts["corrupted"]) / gap
    note = "" if gap > 0 else "the corrupted model is more accurate than the clean one"
    return Value(mean=recovery, parts={name: parts[name] for name in PARTS}, note=note)
