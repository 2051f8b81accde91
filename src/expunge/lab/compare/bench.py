"""Runs of ``expunge bench``: one of every line, drawn again from the rows that were stored.

What stands for forgetting and for utility, where nobody says:
    forgetting    the first number named after the forget rows, else the first that should be low
    utility       the first number called utility, else of retain rows, else the first of rows that
                  are not to be forgotten and that should be high
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from expunge.core import registry
from expunge.core.bootstrap import FloatArray, Units
from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure, Measured, aggregate_of, combined
from expunge.core.results import Value
from expunge.lab.compare.files import BENCH, CHANGE, Bench, Line, Stored, read_bench, read_change
from expunge.lab.compare.files import read_object as read_log
from expunge.lab.compare.runs import ORIGINAL, REFERENCE, RUN, Number, Origin, Run, redrawn

Measures = Mapping[str, Measure]
Stores = Mapping[str, Mapping[str, Stored]]
"""Line -> name of a number -> that number as it was stored."""


def bench_runs(folder: Path) -> list[Run]:
    """The lines of one benchmark's result that did not fail.

    Args:
        folder: What ``expunge bench --out`` wrote.

    Raises:
        ExpungeError: E-DATA-002, E-DATA-003 for a broken ``bench.json`` or log, E-DATA-005 where
            no line has numbers, E-USE-001 for a benchmark this installation does not have.
    """
    bench = read_bench(folder / BENCH)
    params = registry.benchmarks.params(bench.benchmark, bench.params)
    measures: Measures = registry.benchmarks.load(bench.benchmark).measures(params)
    lines = [line for line in bench.lines if line.summary is not None]
    if not lines:
        raise ExpungeError(
            "E-DATA-005",
            f"No line of {folder / BENCH} has numbers.",
            "at least one model that was evaluated.",
            "Read its 'failed' entries, and give the bench command again.",
        )
    stores = {line.name: line.summary.values for line in lines if line.summary is not None}
    failed = tuple(
        f"{folder.name}/{line.name} failed: {line.failed.found}"
        for line in bench.lines
        if line.failed is not None
    )
    runs = [_run(folder, bench, line, _numbers(line.name, measures, stores)) for line in lines]
    axes = first_forgetting(measures, runs[0].numbers), first_utility(measures, runs[0].numbers)
    runs[0] = replace(runs[0], notes=(*failed, *runs[0].notes))
    return [replace(run, forgetting=axes[0], utility=axes[1]) for run in runs]


def _run(folder: Path, bench: Bench, line: Line, numbers: Mapping[str, Number]) -> Run:
    rows, entities = _logged(folder / "logs" / f"{line.name}.json")
    lacking = f"{folder.name}/{line.name}: no log, so rows are resampled, not entities"
    return Run(
        path=folder.resolve() / line.name,
        kind="bench",
        setting={
            "benchmark": bench.benchmark,
            "version": bench.version,
            "split": bench.split,
            **{f"parameter {name}": value for name, value in bench.params.items()},
        },
        numbers=numbers,
        rows=rows or {"rows": frozenset().union(*(one.rows for one in numbers.values()))},
        entities=entities,
        role=line.name if line.name in (ORIGINAL, REFERENCE) else RUN,
        origin=_origin(folder, line),
        notes=() if entities else (lacking,),
    )


def first_forgetting(measures: Measures, numbers: Mapping[str, Number]) -> str | None:
    """The number that stands for forgetting."""
    return _first(
        _measured(measures, numbers),
        lambda name, measure: name.startswith("forget"),
        lambda name, measure: measure.direction == "low",
        lambda name, measure: measure.on == "forget" and measure.direction != "target",
    )


def first_utility(measures: Measures, numbers: Mapping[str, Number]) -> str | None:
    """The number that stands for utility."""
    kept = [
        (name, measure)
        for name, measure in _measured(measures, numbers)
        if measure.direction == "high"
    ]
    return _first(
        kept,
        lambda name, measure: "utility" in name,
        lambda name, measure: name.startswith("retain"),
        lambda name, measure: measure.on != "forget" and not measure.of,
    )


def _measured(measures: Measures, numbers: Mapping[str, Number]) -> list[tuple[str, Measure]]:
    return [
        (name, measure)
        for name, measure in measures.items()
        if name in numbers and numbers[name].value is not None
    ]


def _first(
    among: Iterable[tuple[str, Measure]], *rules: Callable[[str, Measure], bool]
) -> str | None:
    """The first name that the first rule with any fits."""
    known = list(among)
    fitting = (name for rule in rules for name, measure in known if rule(name, measure))
    return next(fitting, None)


def _numbers(line: str, measures: Measures, stores: Stores) -> dict[str, Number]:
    known = [name for name in measures if name in stores[line]]
    return {name: _number(name, line, measures, stores) for name in known}


def _number(name: str, line: str, measures: Measures, stores: Stores) -> Number:
    stored = stores[line][name]
    return Number(
        value=stored.mean,
        interval=stored.interval,
        rows=frozenset(stored.per_row),
        better=measures[name].direction,
        draw=lambda units: _drawn(name, line, measures, stores, units).replicates.get("mean"),
        note=stored.note,
    )


def _drawn(name: str, line: str, measures: Measures, stores: Stores, units: Units) -> Measured:
    """A stored number and its replicates: of its rows, or of the numbers it is made of."""
    stored = stores.get(line, {}).get(name)
    if stored is None or stored.mean is None:
        return Measured(Value(mean=None, note="not measured"), {})
    measure = measures[name]
    value = Value(mean=stored.mean, per_row=stored.per_row, beside=stored.beside)
    if not measure.of:
        settings = registry.metrics.params(measure.metric, measure.params)
        aggregate = aggregate_of(measure.metric, settings)
        drawn: Mapping[str, FloatArray] = redrawn(stored.per_row, stored.beside, units, aggregate)
        return Measured(value, drawn)
    parts = {
        part: _drawn(of.rpartition(":")[2], of.rpartition(":")[0] or line, measures, stores, units)
        for part, of in measure.of.items()
    }
    return combined(measure.metric, parts, measure.params)


def _logged(path: Path) -> tuple[dict[str, frozenset[str]], dict[str, str | None]]:
    """The rows of every set, and the entity of each row, out of a log; empty without one."""
    if not path.is_file():
        return {}, {}
    log: Mapping[str, Any] = read_log(path).get("log", {})
    try:
        sets = {name: of for name, of in log.items() if not name.startswith("@")}
        rows = {name: frozenset(of["reply"]) for name, of in sets.items()}
        entities = {row: who for of in sets.values() for row, who in of["subject"].items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ExpungeError(
            "E-DATA-003",
            f"{path} is no log: {type(error).__name__} {error}.",
            "a log as expunge bench writes it.",
            "Remove the file and give the bench command again.",
        ) from error
    return rows, {str(row): who if isinstance(who, str) else None for row, who in entities.items()}


def _origin(folder: Path, line: Line) -> Origin | None:
    """How a line's model was made: in full where its change is still there."""
    if line.method is None:
        return None
    change = folder / "changes" / line.name / CHANGE
    if change.is_file():
        return Origin(line.method, line.seed, read_change(change).key)
    return Origin(line.method, line.seed, f"{folder.resolve()} {line.method}")
