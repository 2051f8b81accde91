"""Intervals: what a number would have been had other entities been asked about.

Definition (rows i = 1..n of entities e; a statistic of the rows, for instance their mean):
    replicate b    draws whole entities with replacement and computes the statistic of their rows
    interval       from the 2.5th to the 97.5th percentile of the replicates

Twenty questions about one person are not twenty independent draws: on published TOFU logs the
interval over authors is 1.7 times as wide as the one over rows. Tables of the same entities are
resampled alike (a model and its reference on the same rows), tables of other entities apart.

Reference: Bootstrap Methods: Another Look at the Jackknife (1979); Bootstrap-based improvements for
inference with clustered errors (2008).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.core.rng import generator

FloatArray = npt.NDArray[np.float64]
Aggregate = Callable[[FloatArray, Mapping[str, FloatArray]], Mapping[str, float]]
"""Values [n] of the rows, and of the rows beside them -> ``mean`` and parts."""

REPLICATES = 1000
FEWEST = 5
"""Entities below which their resampling says nothing; the rows are resampled instead."""
LEVEL = 0.05
UNDEFINED = 0.05
"""Largest share of replicates in which a statistic may be undefined."""


@dataclass(frozen=True, slots=True)
class Units:
    """Which rows belong together.

    Attributes:
        of: Row id -> its entity; a row that is not named is an entity of its own.
        seed: Decides the draws.
        replicates: Number of draws.
    """

    of: Mapping[str, str | None]
    seed: int = 0
    replicates: int = REPLICATES

    def number(self, rows: Iterable[str]) -> list[int]:
        """The entity of each row, numbered from 0 in the order of their names."""
        names = self.names(rows)
        numbers = {name: index for index, name in enumerate(sorted(set(names)))}
        return [numbers[name] for name in names]

    def names(self, rows: Iterable[str]) -> list[str]:
        """The entity of each row, by name; the rows themselves where entities are too few."""
        rows = list(rows)
        names = [self.of.get(row) or f"row {row}" for row in rows]
        return names if len(set(names)) >= FEWEST else [f"row {row}" for row in rows]

    def draw(self, rows: Iterable[str]) -> npt.NDArray[np.int64]:
        """How often each row occurs in each replicate, [replicates, rows].

        Rows of the same entities are drawn alike whenever they are drawn with the same seed.
        """
        rows = list(rows)
        names, numbers = self.names(rows), self.number(rows)
        n_units = max(numbers, default=-1) + 1
        rng = generator(self.seed, "bootstrap", *sorted(set(names)))
        counts = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=self.replicates)
        return counts[:, numbers]


def mean_of(rows: FloatArray, beside: Mapping[str, FloatArray]) -> dict[str, float]:
    """The default statistic."""
    return {"mean": float(rows.mean())}


def replicated(
    per_row: Mapping[str, float],
    beside: Mapping[str, Mapping[str, float]],
    units: Units,
    aggregate: Aggregate = mean_of,
) -> dict[str, FloatArray]:
    """A statistic of the rows in every replicate.

    Args:
        per_row: Row id -> value.
        beside: What else enters the statistic: name -> row id -> value.
        units: Which rows belong together, and the seed.
        aggregate: The statistic.

    Returns:
        ``mean`` and the parts -> [replicates], NaN where a replicate has none.
    """
    if not per_row:
        return {}
    drawn = units.draw(per_row)
    values = np.array(list(per_row.values()), dtype=np.float64)
    if aggregate is mean_of:
        return {"mean": drawn @ values / drawn.sum(1)}
    others = {
        name: (np.array(list(table.values()), dtype=np.float64), units.draw(table))
        for name, table in beside.items()
    }
    found = [
        aggregate(
            np.repeat(values, drawn[b]),
            {name: np.repeat(array, counts[b]) for name, (array, counts) in others.items()},
        )
        for b in range(units.replicates)
    ]
    return _columns(found)


def interval(replicates: FloatArray) -> tuple[float, float] | None:
    """The 95% interval, or None where the statistic is undefined in too many replicates."""
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < (1 - UNDEFINED) * max(len(replicates), 1):
        return None
    low, high = np.quantile(defined, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _columns(found: Sequence[Mapping[str, Any]]) -> dict[str, FloatArray]:
    names = dict.fromkeys(name for one in found for name in one)
    return {name: np.array([one.get(name, np.nan) for one in found], float) for name in names}
