"""Runs side by side: what every kind of run is reduced to before it is compared.

A run is named by where it lies, so two of them have different names whatever their folders are
called. Its numbers can say what they would have been had other entities been asked about; drawn
from equal units, two runs on the same rows are resampled alike, and their difference is paired.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.core.bootstrap import Aggregate, FloatArray, Units, mean_of, replicated

ORIGINAL, REFERENCE, RUN = "original", "reference", "run"

Draw = Callable[[Units], FloatArray | None]
"""Units -> the number in each replicate, [replicates]; None where its rows are not kept."""


def not_kept(units: Units) -> None:
    """The draw of a number of which only the number itself was stored."""


def redrawn(
    per_row: Mapping[str, float],
    beside: Mapping[str, Mapping[str, float]],
    units: Units,
    aggregate: Aggregate = mean_of,
) -> dict[str, FloatArray]:
    """A stored number in every replicate; empty where not all that it is made of was stored."""
    try:
        return replicated(per_row, beside, units, aggregate)
    except KeyError:  # a result of somebody else need not have what its metric compares with
        return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """One number of a run.

    Attributes:
        value: The number, or None where it could not be measured.
        interval: Its 95% interval.
        rows: Ids of the rows it stands on.
        better: ``low``, ``high`` or ``target``.
        draw: What it would have been with other entities.
        note: What a reader must know.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    rows: frozenset[str] = frozenset()
    better: str = "low"
    draw: Draw = not_kept
    note: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """How a model was made.

    Attributes:
        method: Id of the method.
        seed: Seed of the run.
        key: Equal for runs that differ in nothing but the seed.
    """

    method: str
    seed: int | None
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run.

    Attributes:
        path: Where it lies; the last parts of it are its name.
        kind: ``bench``, ``audit`` or ``change``: runs of one kind are compared with one another.
        setting: What must be equal for two runs to be comparable.
        numbers: Its numbers, by name.
        rows: Set -> ids of its rows.
        forgetting: Name of the number that stands for forgetting, where there is one.
        utility: Name of the number that stands for utility, where there is one.
        entities: Row id -> entity.
        role: ``original`` and ``reference`` are anchors; all others are ``run``.
        origin: How the model was made, where that is known.
        verdict: Of an audit.
        attacks: Attack -> what it recovered and its outcome, of an audit.
        families: Family -> outcome, of an audit.
        erasure: Erasure score of an audit.
        notes: What a reader must know.
    """

    path: Path
    kind: str
    setting: Mapping[str, Any]
    numbers: Mapping[str, Number]
    rows: Mapping[str, frozenset[str]]
    forgetting: str | None = None
    utility: str | None = None
    entities: Mapping[str, str | None] = field(default_factory=dict)
    role: str = RUN
    origin: Origin | None = None
    verdict: str | None = None
    attacks: Mapping[str, Any] = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)
    erasure: Number | None = None
    notes: Sequence[str] = ()

    def value(self, name: str | None) -> float | None:
        """One of its numbers, None where it has none of that name."""
        number = self.numbers.get(name or "")
        return None if number is None else number.value


@dataclass(frozen=True, slots=True)
class Remembered(Units):
    """Units that draw the same rows only once, however many numbers stand on them."""

    drawn: dict[tuple[str, ...], npt.NDArray[np.int64]] = field(default_factory=dict)

    def draw(self, rows: Iterable[str]) -> npt.NDArray[np.int64]:
        """How often each row occurs in each replicate, [replicates, rows]."""
        key = tuple(rows)
        if key not in self.drawn:
            self.drawn[key] = Units.draw(self, key)
        return self.drawn[key]


def named(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by name: as few of the last parts of their paths as tell all of them apart."""
    paths = [run.path.parts for run in runs]
    most = max(map(len, paths), default=1)
    for length in range(1, most + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, runs, strict=True)) if runs else {}


def shared(runs: Iterable[Run]) -> list[str]:
    """Names of the numbers that all runs have, in the order of the first."""
    measured = [[name for name in run.numbers if run.value(name) is not None] for run in runs]
    return [name for name in measured[0] if all(name in other for other in measured)]
