"""Which metrics to trust: do they see knowledge, and do they go on seeing it under stress?

Definition (m a metric turned so that higher is more knowledge; u unlearned, r retrained model;
b before, a after a stress; D = m^a - m^b; HM the harmonic mean, 0 if a part is not above 0):
    faithfulness   F = AUC of m between models that had the knowledge and models that never had
    symmetric      R = 1 - |D_u - D_r| / (|D_u| + |D_r|)      relearning, both models alike
                   Q = 1 - |m^a - m^b| / (|m^a| + |m^b|)      quantisation
    one-sided      R = min(D_r / D_u, 1)
                   Q = min(m^b / m^a, 1)
    Rob = HM(R, Q)        Overall = HM(F, Rob)

Reference: OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025) for the
one-sided form; the symmetric one is that of a later study of representation-level metrics.

The symmetric form is the default: the one-sided Q gives 1 to a metric that merely collapses, and
its R can be negative. Where nothing changed on either side (0 / 0) a metric was steady: 1. Stress
is read on models only that kept at least 80% of their utility and, where a threshold of the metric
is given, that it calls forgotten.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, harmonic_mean

import numpy as np

from expunge.numbers.membership import auc

UTILITY = 0.8
"""Share of its utility a model must have kept for its robustness to count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stressed:
    """One metric on one unlearned model, before and after stress, higher is more knowledge.

    Attributes:
        before: On the unlearned model.
        relearned: After it was trained on the rows again.
        quantised: After its weights were rounded to four bits.
        utility: Share of the original model's utility it kept.
    """

    before: float
    relearned: float
    quantised: float
    utility: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How far a metric can be trusted; every number is at most 1, and 1 is best.

    Attributes:
        faithfulness: F.
        relearning: Mean R over the models.
        quantisation: Mean Q over the models.
        models: How many models R and Q are means over.
    """

    faithfulness: float
    relearning: float
    quantisation: float
    models: int

    @property
    def robustness(self) -> float:
        """Rob."""
        return harmonic(self.relearning, self.quantisation)

    @property
    def overall(self) -> float:
        """Overall."""
        return harmonic(self.faithfulness, self.robustness)


def standing(
    knew: Sequence[float],
    never: Sequence[float],
    unlearned: Sequence[Stressed],
    *,
    reference: tuple[float, float],
    form: str = "symmetric",
    threshold: float | None = None,
) -> Standing:
    """Judge a metric.

    Args:
        knew: Its values on models that had the knowledge,
        never: and on models that never had it, on identical rows.
        unlearned: Its values on unlearned models under stress.
        reference: Its values on the retrained model before and after the same relearning.
        form: ``symmetric`` or ``one-sided``.
        threshold: Count only models on which the metric is at most this before stress.

    Raises:
        ValueError: When no model qualifies, or a pool is empty.
    """
    counted = [
        model
        for model in unlearned
        if model.utility >= UTILITY and (threshold is None or model.before <= threshold)
    ]
    if not counted:
        raise ValueError("no unlearned model kept its utility and counts as forgotten")
    relearning, quantisation = FORMS[form]
    change = reference[1] - reference[0]
    return Standing(
        faithfulness=faithfulness(knew, never),
        relearning=fmean(relearning(m.relearned - m.before, change) for m in counted),
        quantisation=fmean(quantisation(m.before, m.quantised) for m in counted),
        models=len(counted),
    )


def faithfulness(knew: Sequence[float], never: Sequence[float]) -> float:
    """Probability that a metric is higher on a model that knew than on one that never did."""
    return auc(np.asarray(never, dtype=float), np.asarray(knew, dtype=float))


def best_threshold(knew: Sequence[float], never: Sequence[float]) -> float:
    """The value at or below which a model is best called ignorant.

    Returns:
        The midpoint between two neighbouring values that leaves fewest models on the wrong side;
        of several the lowest.
    """
    values = sorted({*knew, *never})
    cuts = [(a + b) / 2 for a, b in pairwise(values)] or values

    def wrong(cut: float) -> float:
        return fmean(m <= cut for m in knew) + fmean(m > cut for m in never)

    return min(cuts, key=wrong)


def symmetric_relearning(change: float, reference: float) -> float:
    """R from the changes of the unlearned and the retrained model."""
    return _unlike(change, reference)


def symmetric_quantisation(before: float, after: float) -> float:
    """Q from the values before and after."""
    return _unlike(before, after)


def one_sided_relearning(change: float, reference: float) -> float:
    """R from the changes of the unlearned and the retrained model; may be negative."""
    return _capped(reference, change)


def one_sided_quantisation(before: float, after: float) -> float:
    """Q from the values before and after."""
    return _capped(before, after)


def harmonic(first: float, second: float) -> float:
    """Harmonic mean of two numbers; 0 when one of them is not above 0."""
    return harmonic_mean((first, second)) if min(first, second) > 0 else 0.0


def _unlike(first: float, second: float) -> float:
    size = abs(first) + abs(second)
    return 1 - abs(first - second) / size if size else 1.0


def _capped(numerator: float, denominator: float) -> float:
    """``min(numerator / denominator, 1)``; 1 where the denominator is 0: nothing moved."""
    return min(numerator / denominator, 1.0) if denominator else 1.0


Ratio = Callable[[float, float], float]

FORMS: Mapping[str, tuple[Ratio, Ratio]] = {
    "symmetric": (symmetric_relearning, symmetric_quantisation),
    "one-sided": (one_sided_relearning, one_sided_quantisation),
}
"""Form -> R of (change, change of the reference), Q of (before, after)."""
