"""FaithUn score: whether a fact is gone in every wording, and only that fact.

Definition (accuracies on questions the original knew; all in [0, 1]):
    UA, UA_para     forgotten facts, as trained on and in other words
    TA              other facts        SA    other facts that have the same answer
    MA_f, MA_t      questions through a forgotten fact, and through facts to keep
    MA    = ((1 - MA_f) + MA_t) / 2                                     ours, INFERRED
    score = mean(1 - UA, 1 - UA_para, TA, SA, MA)                       INFERRED

Reference: FaithUn: Toward Faithful Forgetting in Language Models by Investigating the
Interconnectedness of Knowledge (2025).

Departs from the paper: how it weighs the numbers was not found, nor how it merges the two sides of
MA; both are printed, because a method that changes little raises MA_t and hides MA_f.

Meaning:
    1           forgotten in all wordings and consequences, everything else kept
    guessing    with k options a model that forgot ends at UA = 1/k and not at 0, so a perfect
                method stays below 1: .83 with three options
    fooled by   methods stopped at different UA: the authors stop every method where UA reaches
                chance, 1/options (INFERRED from equal numbers in reviews), then compare the rest

Example:
    A table from which one exact question was deleted, and nothing that follows from it.

    >>> from expunge.testing import measure
    >>> parts = {"ua": 0.0, "ua_para": 1.0, "ta": 1.0, "sa": 1.0, "ma_f": 1.0, "ma_t": 1.0}
    >>> measure("faithun-score", {"parts": parts}).mean
    0.7
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import table, unmeasurable

CARD = {
    "id": "faithun-score",
    "kind": "metric",
    "summary": "Mean of what FaithUn wants gone and of what it wants kept.",
    "paper": "FaithUn: Toward Faithful Forgetting in Language Models (2025)",
    "needs": ["parts"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "none beyond its six accuracies",
    "maturity": "paper",
    "version": 1,
}

PARTS = ("ua", "ua_para", "ta", "sa", "ma_f", "ma_t")


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The score.

    Args:
        scores: ``parts``: the six accuracies in [0, 1].
        params: Nothing to set.
        reference: Not used.

    Returns:
        The score in [0, 1], its six parts and ``ma``.
    """
    parts = table(scores, "parts")
    lacking = [name for name in PARTS if name not in parts]
    if lacking:
        return unmeasurable(f"{', '.join(lacking)} was not measured")
    ma = ((1 - parts["ma_f"]) + parts["ma_t"]) / 2
    score = fmean((1 - parts["ua"], 1 - parts["ua_para"], parts["ta"], parts["sa"], ma))
    return Value(mean=score, parts={**{name: parts[name] for name in PARTS}, "ma": ma})
