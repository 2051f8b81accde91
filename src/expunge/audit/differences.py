"""Gates that look at a difference instead of an excess recovery.

Definition:
    difference    d = A_u - A_c, two-sided        A: AUC of forget rows against hold-out rows
    cost          d = D - D_clean, one-sided      D: share of retained rows lost

Membership shows on both sides: an AUC far below the control's marks the rows as surely as one far
above. An AUC is a mean over rows: the *placement* of a forget row is the share of hold-out rows
that look less familiar than it, and the placements of hold-out rows carry the other side's part of
the variance (DeLong, Comparing the areas under two or more correlated receiver operating
characteristic curves, 1988). So both sides are resampled: AUC* = mean* of the one + mean* of the
other - AUC.

A cost is its own control: the same rows after a clean request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from expunge.audit.statistics import (
    LEVEL,
    FloatArray,
    Leaks,
    Recovery,
    Resamples,
    mean_leak,
    replicate_means,
    resample,
)

CHANCE = 0.5
"""AUC on rows nobody can tell apart: the control where there is no reference."""

ENOUGH_ROWS = 180
"""Rows on each side from which a membership test may pass; it may fail with fewer."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Placements:
    """Placements of the hold-out rows, one line a run; [runs, hold-out rows].

    Attributes:
        model: Under the audited model.
        control: Under the reference; None where chance is the control.
        units: Unit of each hold-out row.
    """

    model: FloatArray
    control: FloatArray | None
    units: Sequence[int]


def differ(leaks: Leaks, placements: Placements, draws: Resamples, threshold: float) -> Recovery:
    """How far the audited model's AUC lies from the control's, on either side.

    Args:
        leaks: Placements of the forget rows; those of the control are looked at only where there
            is a reference.
        placements: The same of the hold-out rows.
        draws: The resamples of this audit.
        threshold: The gate.
    """
    runs = draws.runs(leaks.model.shape[0])
    weights = resample(placements.units, len(runs), draws.seed, "holdout")
    original, model = mean_leak(leaks.original), mean_leak(leaks.model)
    of_model = _auc(leaks.model, placements.model, draws.forget, weights, runs)
    control, of_control = CHANCE, np.full_like(of_model, CHANCE)
    if placements.control is not None:
        control = mean_leak(leaks.control)
        of_control = _auc(leaks.control, placements.control, draws.forget, weights, runs)
    return _decided(
        original=original,
        model=model,
        control=control,
        replicates=of_model - of_control,
        variance=(_spread(of_model), _spread(of_control)),
        threshold=threshold,
        n=min(_tested(leaks.model), _tested(placements.model)),
        two_sided=True,
    )


def cost(
    damage: Mapping[str, float],
    clean: Mapping[str, float],
    seed: int,
    threshold: float,
    replicates: int,
) -> Recovery:
    """How much more was lost than by the same request without the attack.

    Args:
        damage: Row id -> what was lost of it.
        clean: The same after the clean request.
        seed: Seed of the audit.
        threshold: The gate.
        replicates: Number of bootstrap replicates.
    """
    rows = [id for id in damage if id in clean]
    attacked, without = (np.array([[of[id] for id in rows]]) for of in (damage, clean))
    weights = resample(range(len(rows)), replicates, seed, "cost")
    one = np.ones((replicates, 1))
    of_attacked, of_clean = (replicate_means(weights, of, one) for of in (attacked, without))
    return _decided(
        original=float("nan"),
        model=mean_leak(attacked) if rows else float("nan"),
        control=mean_leak(without) if rows else float("nan"),
        replicates=of_attacked - of_clean,
        variance=(_spread(of_attacked), _spread(of_clean)),
        threshold=threshold,
        n=len(rows),
        two_sided=False,
    )


def _auc(
    rows: FloatArray, others: FloatArray, forget: FloatArray, holdout: FloatArray, runs: FloatArray
) -> FloatArray:
    means = replicate_means(forget, rows, runs)
    return means + replicate_means(holdout, others, runs) - mean_leak(others)


def _tested(values: FloatArray) -> int:
    return int((~np.isnan(values)).any(axis=0).sum())


def _spread(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.var()) if known.size else 0.0


def _decided(
    *,
    original: float,
    model: float,
    control: float,
    replicates: FloatArray,
    variance: tuple[float, float],
    threshold: float,
    n: int,
    two_sided: bool,
) -> Recovery:
    """The difference in the form of a recovery; its value is the size of the difference."""
    known = replicates[~np.isnan(replicates)]
    usable = known.size > 0 and n > 0
    sign = -1.0 if two_sided and model < control else 1.0
    turned = sign * known
    interval = upper = p = at_zero = value = None
    if usable:
        value = float(np.clip(sign * (model - control), 0, 1))
        low, high = (float(np.quantile(turned, q)) for q in (LEVEL / 2, 1 - LEVEL / 2))
        interval = (min(1.0, max(0.0, low)), min(1.0, max(high, -low if two_sided else 0.0)))
        above, below = (float(np.quantile(turned, q)) for q in (1 - LEVEL, LEVEL))
        upper = min(1.0, max(above, -below if two_sided else 0.0, 0.0))
        p = float((turned <= threshold).sum() + 1) / (known.size + 1)
        at_zero = (1.645 * float(known.std()), 0.0)
    return Recovery(
        original=original,
        model=model,
        control=control,
        value=value,
        interval=interval,
        upper=upper,
        at_zero=at_zero,
        p=p,
        threshold=threshold,
        n=n,
        replicates=replicates,
        dropped=1 - known.size / max(1, replicates.size),
        variance=variance,
    )
