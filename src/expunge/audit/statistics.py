"""What the leaks of one attack say: excess recovery, its interval, and the outcome of the gate.

Definition:
    XR = clip((L_u - L_c) / (L_o - L_c), 0, 1)

``L_u``, ``L_c`` and ``L_o`` are the mean leaks of one attack on the audited model, on the control
and on the original. XR is 0 for a model that gives away as much as the control and 1 for one that
gives away as much as the original. Intervals come from a cluster bootstrap that resamples subjects
(facts when there are fewer than 20 subjects) and is paired: one resample serves the audited model,
the original, and the control where the control answers the same rows.

The percentile bootstrap is blind where every row gives the same answer, so there the exact binomial
bound (Clopper and Pearson, The use of confidence or fiducial limits, 1934) takes its place. The
exact bound counts rows: with all leaks equal nothing in the data tells how rows cluster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, norm

from expunge.core.rng import generator
from expunge.requests.rows import Row

FloatArray = npt.NDArray[np.float64]

REPLICATES = 2000
LEVEL = 0.05
"""Error level of one-sided bounds and, family-wise, of all failing gates of one audit."""
GAP = 0.10
"""Smallest lead of the original over the control with which an attack can say anything."""
UNDEFINED = 0.05
"""Lead below which a replicate's ratio is undefined; the largest share of such replicates, too."""
SUBJECTS = 20
"""From this many subjects on, the subject is the unit of resampling."""


def unit_of(rows: Sequence[Row]) -> tuple[str, list[int]]:
    """The unit of resampling and, for each row, the number of its unit.

    Returns:
        ``("subject", units)`` when at least `SUBJECTS` subjects are named, else
        ``("fact", units)``. A row without a subject is a unit of its own.
    """
    names = [row.subject or f"row {row.id}" for row in rows]
    if len({row.subject for row in rows if row.subject}) < SUBJECTS:
        return "fact", list(range(len(rows)))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return "subject", [numbers[name] for name in names]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Resamples:
    """How often each row occurs in each bootstrap replicate.

    Attributes:
        forget: [replicates, forget rows].
        control: [replicates, control rows]; the same array as `forget` when the control answers
            the forget rows.
        seed: The audit's seed, from which repeated attack runs are resampled too.
    """

    forget: FloatArray
    control: FloatArray
    seed: int

    def runs(self, n_runs: int) -> FloatArray:
        """Weights [replicates, n_runs] of the repeated runs of a random attack; rows sum to 1."""
        replicates = self.forget.shape[0]
        return resample(list(range(n_runs)), replicates, self.seed, "runs", n_runs) / n_runs


def resample(units: Sequence[int], replicates: int, seed: int, *names: str | int) -> FloatArray:
    """Draw whole units with replacement.

    Args:
        units: The unit of each row, numbered from 0.
        replicates: Number of bootstrap replicates B.
        seed: Seed of the audit.
        names: What the draw is for; other names give other draws.

    Returns:
        [B, rows]: how often each row occurs in each replicate.
    """
    n_units = max(units, default=-1) + 1
    if n_units == 0:
        return np.zeros((replicates, 0))
    rng = generator(seed, "bootstrap", *map(str, names))
    counts = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=replicates)
    return counts[:, list(units)].astype(np.float64)


def resamples(
    units: Sequence[int],
    control_units: Sequence[int] | None,
    seed: int,
    replicates: int = REPLICATES,
) -> Resamples:
    """The resamples that all attacks of one audit share.

    Args:
        units: Unit of each forget row.
        control_units: Unit of each control row; None when the control answers the forget rows.
        seed: Seed of the audit.
        replicates: Number of bootstrap replicates.
    """
    forget = resample(units, replicates, seed, "forget")
    if control_units is None:
        return Resamples(forget=forget, control=forget, seed=seed)
    control = resample(control_units, replicates, seed, "control")
    return Resamples(forget=forget, control=control, seed=seed)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Leaks:
    """Leaks of one attack, one line for each repeated run; NaN where a row was not tested.

    Attributes:
        original: [runs, forget rows].
        model: [runs, forget rows].
        control: [runs, control rows].
    """

    original: FloatArray
    model: FloatArray
    control: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recovery:
    """The excess recovery of one attack and all that its gate needs.

    Attributes:
        original: Mean leak of the original.
        model: Mean leak of the audited model.
        control: Mean leak of the control.
        value: XR, or None when the gap to the control is too small to divide by.
        interval: Two-sided 95% interval of XR, or None with `value`.
        upper: One-sided 95% upper bound of XR, or None with `value`.
        at_zero: The upper bounds that a model exactly like the control would get: from the
            control's spread, and the exact one (0 where leaks are shares); None with `value`.
        p: Probability of so much recovery if XR were at most `threshold`; None with `value`.
        threshold: The gate.
        n: Tested forget rows.
        replicates: [B] XR of each replicate, not clipped, NaN where undefined.
        dropped: Share of undefined replicates.
        variance: Variances of the mean leaks of model and control over the replicates.
    """

    original: float
    model: float
    control: float
    value: float | None
    interval: tuple[float, float] | None
    upper: float | None
    at_zero: tuple[float, float] | None
    p: float | None
    threshold: float
    n: int
    replicates: FloatArray
    dropped: float
    variance: tuple[float, float]

    @property
    def gap(self) -> float:
        """Lead of the original over the control."""
        return self.original - self.control

    @property
    def has_power(self) -> bool:
        """Whether a model exactly like the control would pass."""
        return self.at_zero is not None and max(self.at_zero) <= self.threshold

    @property
    def clipped(self) -> FloatArray:
        """[B] XR of each replicate, clipped to [0, 1]."""
        return np.clip(self.replicates, 0, 1)


def exact_upper(n: int, level: float = LEVEL) -> float:
    """Upper bound of a share of which 0 of ``n`` were seen (Clopper-Pearson, one-sided).

    Example:
        >>> round(exact_upper(40), 4), round(exact_upper(80), 4), round(exact_upper(299), 4)
        (0.0722, 0.0368, 0.01)
    """
    return float(beta.ppf(1 - level, 1, n)) if n else 1.0


def mean_leak(leaks: FloatArray) -> float:
    """Mean over tested rows, then over runs, of leaks [runs, rows]; NaN when nothing was tested."""
    tested = ~np.isnan(leaks)
    if not tested.any(axis=1).all():
        return float("nan")
    return float((np.where(tested, leaks, 0).sum(axis=1) / tested.sum(axis=1)).mean())


def replicate_means(weights: FloatArray, leaks: FloatArray, runs: FloatArray) -> FloatArray:
    """The mean leak in each replicate.

    Args:
        weights: [B, rows] how often each row was drawn.
        leaks: [runs, rows], NaN where not tested.
        runs: [B, runs] weight of each run, rows summing to 1.

    Returns:
        [B], NaN where a replicate holds no tested row.
    """
    tested = ~np.isnan(leaks)
    totals = weights @ np.where(tested, leaks, 0.0).T
    counts = weights @ tested.T.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: FloatArray = (runs * (totals / counts)).sum(axis=1)
    return result


def recover(leaks: Leaks, draws: Resamples, threshold: float) -> Recovery:
    """Excess recovery of one attack with its bootstrap interval.

    Args:
        leaks: What the attack got from original, model and control.
        draws: The resamples of this audit.
        threshold: The gate T.
    """
    means = tuple(mean_leak(x) for x in (leaks.original, leaks.model, leaks.control))
    original, model, control = means
    n = int((~np.isnan(leaks.model)).any(axis=0).sum())
    runs = draws.runs(leaks.model.shape[0])
    of_original = replicate_means(draws.forget, leaks.original, runs)
    of_model = replicate_means(draws.forget, leaks.model, runs)
    of_control = replicate_means(draws.control, leaks.control, runs)
    ratio = _ratio(of_model, of_original, of_control)
    dropped = float(np.isnan(ratio).mean())
    told = _Bounds(leaks, original - control, model, control, n, ratio)
    usable = not np.isnan(means).any() and original - control >= GAP and dropped < 1
    spread = (_variance(of_model), _variance(of_control))
    return Recovery(
        original=original,
        model=model,
        control=control,
        value=min(1.0, max(0.0, told.point)) if usable else None,
        interval=(told.lower(LEVEL / 2), told.upper(LEVEL / 2)) if usable else None,
        upper=told.upper(LEVEL) if usable else None,
        at_zero=told.at_zero(spread[1]) if usable else None,
        p=told.p(threshold) if usable else None,
        threshold=threshold,
        n=n,
        replicates=ratio,
        dropped=dropped,
        variance=spread,
    )


def _ratio(model: FloatArray, original: FloatArray, control: FloatArray) -> FloatArray:
    gap = original - control
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(gap >= UNDEFINED, (model - control) / gap, np.nan)
    return ratio


def _variance(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.var()) if known.size else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Bounds:
    """Bounds of one excess recovery: the bootstrap's, or the exact ones where it is blind."""

    leaks: Leaks
    gap: float
    model: float
    control: float
    n: int
    ratio: FloatArray

    @property
    def point(self) -> float:
        return (self.model - self.control) / self.gap

    def lower(self, level: float) -> float:
        return float(np.clip(np.nanquantile(self.ratio, level), 0, 1))

    def upper(self, level: float) -> float:
        bound = float(np.nanquantile(self.ratio, 1 - level))
        if np.nanmax(self.leaks.model) == 0:
            bound = max(bound, exact_upper(self.n, level) / self.gap)
        return min(1.0, max(0.0, bound))

    def at_zero(self, control_variance: float) -> tuple[float, float]:
        """The control's spread, carried over to as many rows as the audited model answered."""
        told = self.leaks.control[~np.isnan(self.leaks.control)]
        rows = int((~np.isnan(self.leaks.control)).any(axis=0).sum())
        spread = sqrt(control_variance * (1 + rows / self.n)) / self.gap
        exact = exact_upper(self.n) / self.gap if np.isin(told, (0.0, 1.0)).all() else 0.0
        return float(norm.ppf(1 - LEVEL)) * spread, exact

    def p(self, threshold: float) -> float:
        """Smoothed share of replicates at or below the gate; exact where every row leaked."""
        known = self.ratio[~np.isnan(self.ratio)]
        p = float((known <= threshold).sum() + 1) / (known.size + 1)
        if np.nanmin(self.leaks.model) == 1:
            p = max(p, (self.control + threshold * self.gap) ** self.n)
        return p


def holm(p_values: Mapping[str, float], level: float = LEVEL) -> dict[str, bool]:
    """Which of several claims stand when all are tested together.

    Reference: A simple sequentially rejective multiple test procedure, 1979.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': True, 'c': False, 'b': False}
    """
    stands, result = True, {}
    for rank, name in enumerate(sorted(p_values, key=lambda key: (p_values[key], key))):
        stands = stands and p_values[name] <= level / (len(p_values) - rank)
        result[name] = stands
    return result
