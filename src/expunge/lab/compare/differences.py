"""Differences between runs, over entities and over seeds, and how many were looked at.

Definition (b = 1..B replicates; x_sb: a number of the run with seed s, entities drawn as in b):
    one run         x_b
    S < 3 seeds     mean_s x_sb                                     over entities alone
    S >= 3 seeds    mean_s x_sb + sqrt(S / (S - 1)) (mean over S drawn seeds - mean_s x_sb)
    difference      x_b of one minus x_b of the other, with the same entities drawn in both
    p               2 min(#(d_b <= 0), #(d_b >= 0)) / B, counted with one replicate more
    Holm            p (m - rank + 1) made monotone, over the m differences shown

Drawing S of S seeds shows (S - 1) / S of their variance; the square root gives the rest back.
With three seeds the spread is still a guess from three values.

Reference: A Simple Sequentially Rejective Multiple Test Procedure (1979); Deep Reinforcement
Learning at the Edge of the Statistical Precipice (2021).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

import numpy as np

from expunge.core.bootstrap import LEVEL, FloatArray, Units, interval
from expunge.core.rng import generator
from expunge.lab.compare.runs import Run

FEWEST_SEEDS = 3
"""Seeds from which their spread enters the interval."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One side of a comparison: a run, or runs of one method that differ in the seed only.

    Attributes:
        name: What it is called.
        runs: Name -> run.
    """

    name: str
    runs: Mapping[str, Run]

    def value(self, name: str) -> float | None:
        """Mean of a number over the seeds, None where a run lacks it."""
        values = [run.value(name) for run in self.runs.values()]
        known = [value for value in values if value is not None]
        return fmean(known) if len(known) == len(values) else None

    def spread(self, name: str) -> float | None:
        """Standard deviation of a number over the seeds."""
        values = [value for run in self.runs.values() if (value := run.value(name)) is not None]
        return stdev(values) if len(values) == len(self.runs) > 1 else None

    def rows(self, name: str) -> frozenset[str]:
        """Rows on which a number stands, in any of the runs."""
        return frozenset().union(*(run.numbers[name].rows for run in self.runs.values()))

    def drawn(self, name: str, units: Units) -> FloatArray | None:
        """A number in each replicate, [B]; None where its rows were not kept."""
        draws = [run.numbers[name].draw(units) for run in self.runs.values()]
        known = [draw for draw in draws if draw is not None]
        if len(known) < len(draws):
            return None
        return over_seeds(np.stack(known), units.seed, *self.runs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One number of one entry minus that of another.

    Attributes:
        entry: Whose number,
        against: and whose is taken off.
        number: Name of the number.
        value: The difference.
        interval: Its 95% interval; None where the rows were not kept.
        p: Its two-sided p.
        holm: The same, adjusted for all differences shown.
        seeds: Runs on either side.
        note: What a reader must know.
    """

    entry: str
    against: str
    number: str
    value: float
    interval: tuple[float, float] | None
    p: float | None
    holm: float | None = None
    seeds: tuple[int, int] = (1, 1)
    note: str = ""

    @property
    def is_significant(self) -> bool | None:
        """Whether it stands after the adjustment; None without a p."""
        return None if self.holm is None else self.holm < LEVEL


def over_seeds(drawn: FloatArray, seed: int, *names: str) -> FloatArray:
    """The mean over runs in each replicate, with the spread of the seeds from three on.

    Args:
        drawn: [S, B], a number of each run in each replicate.
        seed: Of the draws.
        names: Of the runs; other runs draw other seeds.

    Returns:
        [B].
    """
    n_seeds, replicates = drawn.shape
    mean: FloatArray = drawn.mean(0)
    if n_seeds < FEWEST_SEEDS:
        return mean
    rng = generator(seed, "seeds", *names)
    counts = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=replicates)
    redrawn = (counts.T * drawn).sum(0) / n_seeds
    widened: FloatArray = mean + sqrt(n_seeds / (n_seeds - 1)) * (redrawn - mean)
    return widened


class Replicates:
    """The numbers of entries in every replicate, each made once however often it is compared."""

    def __init__(self, units: Units) -> None:
        """Draw by these units."""
        self.units = units
        self._made: dict[tuple[str, str], FloatArray | None] = {}

    def of(self, entry: Entry, number: str) -> FloatArray | None:
        """A number of an entry in each replicate, [B]; None where its rows were not kept."""
        key = entry.name, number
        if key not in self._made:
            self._made[key] = entry.drawn(number, self.units)
        return self._made[key]


def difference(
    entry: Entry, against: Entry, number: str, replicates: Replicates
) -> Difference | None:
    """One paired difference; None where either side lacks the number."""
    left, right = entry.value(number), against.value(number)
    if left is None or right is None:
        return None
    drawn, other = replicates.of(entry, number), replicates.of(against, number)
    notes = []
    bounds, p = None, None
    if drawn is None or other is None:
        notes.append("its rows were not kept, so there is no interval")
    else:
        bounds, p = interval(drawn - other), two_sided(drawn - other)
    if entry.rows(number) != against.rows(number):
        counts = len(entry.rows(number)), len(against.rows(number))
        notes.append("measured on other rows ({} and {}), each by all its rows".format(*counts))
    return Difference(
        entry=entry.name,
        against=against.name,
        number=number,
        value=left - right,
        interval=bounds,
        p=p,
        seeds=(len(entry.runs), len(against.runs)),
        note="; ".join(notes),
    )


def two_sided(differences: FloatArray) -> float | None:
    """How rarely replicates of a difference lie beyond zero; None where too many are undefined."""
    if interval(differences) is None:
        return None
    defined = differences[np.isfinite(differences)]
    beyond = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(defined) + 1))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p of each, by Holm's step-down procedure.

    Example:
        >>> [round(q, 3) for q in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted
