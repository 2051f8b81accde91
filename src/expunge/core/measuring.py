"""Metrics by id: a number with its rows, its interval and its seed.

A benchmark says what it measures as a table of `Measure`; an audit and the tests ask for a single
metric. All of them come through here, so a number carries the same things wherever it stands.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from expunge.core import registry
from expunge.core.bootstrap import (
    FEWEST,
    Aggregate,
    FloatArray,
    Units,
    interval,
    mean_of,
    replicated,
)
from expunge.core.results import Value

REFERENCE = "reference"
"""The need of a metric that compares with the retrained model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One number of a benchmark.

    Attributes:
        metric: Id.
        on: The set whose readings the metric sees under their plain names.
        beside: Role -> set, for metrics that need readings of other rows (``holdout.nll``).
        params: Parameters of the metric, where not the defaults.
        of: For a number made of other numbers: name of a part -> name of the measure;
            ``reference:NAME`` and ``original:NAME`` are that measure of the other model.
        better: ``low``, ``high`` or ``target`` here, where it is not what the card says (rows to
            keep turn most directions round).
    """

    metric: str
    on: str = "forget"
    beside: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    of: Mapping[str, str] = field(default_factory=dict)
    better: str | None = None

    @property
    def direction(self) -> str:
        """Which way is good for whoever wants to forget and to keep the rest."""
        return self.better or str(registry.metrics.card(self.metric).extra["better"])

    @property
    def needs(self) -> tuple[str, ...]:
        """What its readings are, with these parameters; the reference is none."""
        own = getattr(registry.metrics.load(self.metric), "needs", None)
        if own is not None:
            return tuple(own(registry.metrics.params(self.metric, self.params)))
        needed = registry.metrics.card(self.metric).needs
        return tuple(name for name in needed if name != REFERENCE)


@dataclass(frozen=True, slots=True)
class Measured:
    """A number and what it would have been in each replicate.

    Attributes:
        value: The number.
        replicates: ``mean`` and parts -> [replicates]; empty where nothing can be resampled.
        rows: The rows behind it, its own or those of the numbers it is made of.
    """

    value: Value
    replicates: Mapping[str, FloatArray]
    rows: frozenset[str] = frozenset()


def measured(
    metric_id: str,
    scores: Mapping[str, Any],
    reference: Mapping[str, Any] | None = None,
    *,
    units: Units | None = None,
    against: str = REFERENCE,
    params: Mapping[str, Any] | None = None,
) -> Measured:
    """Compute one metric with its interval.

    Args:
        metric_id: Its id.
        scores: Reading -> {row id: value}, see `expunge.core.scores`.
        reference: The same readings of the retrained reference.
        units: Which rows belong together, and the seed; by default each row stands alone.
        against: Name of the model that ``reference`` comes from.
        params: Parameters that replace the defaults.
    """
    units = units or Units({})
    module = registry.metrics.load(metric_id)
    settings = registry.metrics.params(metric_id, params or {})
    value: Value = module.compute(scores, settings, reference)
    compares = REFERENCE in registry.metrics.card(metric_id).needs or REFERENCE in value.beside
    named = against if compares and reference is not None else ""
    value = replace(value, seed=units.seed, against=named)
    if value.mean is None or not value.per_row:
        return Measured(value, {})
    if len(value.per_row) == 1:
        told = "; ".join(filter(None, (value.note, "one row: an interval takes two")))
        return Measured(replace(value, interval=None, units=1, note=told), {})
    found = replicated(value.per_row, value.beside, units, aggregate_of(metric_id, settings))
    return Measured(with_intervals(value, found, units), found, frozenset(value.per_row))


def aggregate_of(metric_id: str, params: Any) -> Aggregate:
    """How a metric's rows become its number: its own ``aggregate``, or the mean."""
    own = getattr(registry.metrics.load(metric_id), "aggregate", None)
    return mean_of if own is None else lambda rows, beside: own(rows, beside, params)


def combined(metric_id: str, parts: Mapping[str, Measured], params: Mapping[str, Any]) -> Measured:
    """A metric of other numbers, for instance a harmonic mean.

    Args:
        metric_id: Its id; it needs ``parts``.
        parts: Name of a part -> that number.
        params: Parameters that replace the defaults.
    """
    module = registry.metrics.load(metric_id)
    settings = registry.metrics.params(metric_id, params)
    value: Value = module.compute({"parts": {k: m.value.mean for k, m in parts.items()}}, settings)
    drawn = {name: part.replicates["mean"] for name, part in parts.items() if part.replicates}
    if value.mean is None or not drawn:
        return Measured(value, {})
    rows = frozenset(row for part in parts.values() for row in part.rows)
    fixed = {name: part.value.mean for name, part in parts.items() if name not in drawn}
    count = min(map(len, drawn.values()))
    means = [
        module.compute({"parts": fixed | {k: float(v[b]) for k, v in drawn.items()}}, settings).mean
        for b in range(count)
    ]
    found = {"mean": np.array([np.nan if mean is None else mean for mean in means])}
    seeds = [part.value.seed for part in parts.values() if part.value.seed is not None]
    entities = [part.value.units for part in parts.values() if part.value.units]
    value = replace(value, interval=interval(found["mean"]), seed=min(seeds, default=None))
    value = replace(value, units=min(entities, default=None), behind=len(rows))
    return Measured(value, found, rows)


def with_intervals(value: Value, found: Mapping[str, FloatArray], units: Units) -> Value:
    """A value with the intervals its replicates give."""
    entities = {units.of.get(row) or f"row {row}" for row in value.per_row}
    few = len(entities) < min(FEWEST, len(value.per_row))
    said = f"too few entities ({len(entities)}): the interval is over rows" if few else ""
    parts = {name: interval(drawn) for name, drawn in found.items() if name in value.parts}
    bounds = interval(found["mean"])
    undefined = "" if bounds else "no interval: the number is undefined for rows drawn again"
    leans = bounds and value.mean is not None and not bounds[0] <= value.mean <= bounds[1]
    beside = "drawing rows again shifts this number, so the interval leaves it out" if leans else ""
    return replace(
        value,
        interval=bounds,
        intervals={name: both for name, both in parts.items() if both is not None},
        units=len(value.per_row) if few else len(entities),
        note="; ".join(filter(None, (value.note, said, undefined, beside))),
    )
