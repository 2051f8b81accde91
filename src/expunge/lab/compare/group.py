"""One group of comparable runs: its table, its seeds, its differences, as a JSON value."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from expunge.core.bootstrap import FEWEST, LEVEL, REPLICATES, interval
from expunge.core.events import track
from expunge.lab.compare.attacks import leading
from expunge.lab.compare.differences import (
    FEWEST_SEEDS,
    Difference,
    Entry,
    Replicates,
    difference,
    holm,
)
from expunge.lab.compare.runs import Number, Remembered, Run, shared

MOST_REPLICATES = 10_000
PER_DIFFERENCE = 60
"""Replicates for each difference shown, so that an adjusted p can still be small."""


def group(
    kind: str,
    runs: Mapping[str, Run],
    wanted: Sequence[str],
    against: str | None,
    seed: int,
) -> dict[str, Any]:
    """Everything about the runs of one kind.

    Args:
        kind: ``bench``, ``audit`` or ``change``.
        runs: Name -> run.
        wanted: Numbers to compare; all that the runs share when there are none.
        against: Run or group that the others are compared with; the first when not given.
        seed: Of the intervals.
    """
    entries = seeds_of(runs)
    common = shared(runs.values())
    metrics = [name for name in common if name in wanted] or leading(common)
    base = _base(runs, entries, against)
    others = [entry for entry in entries if not base.runs.keys() & entry.runs.keys()]
    pairs = [(entry, name) for entry in others for name in metrics]
    drawn = min(MOST_REPLICATES, max(REPLICATES, PER_DIFFERENCE * len(pairs)))
    entities = {row: who for run in runs.values() for row, who in run.entities.items()}
    replicates = Replicates(Remembered(entities, seed, drawn))
    found = [difference(entry, base, name, replicates) for entry, name in track(pairs, "compare")]
    differences = _adjusted([one for one in found if one is not None])
    first = next(iter(runs.values()))
    axes = {axis: _axis(runs, axis) for axis in ("forgetting", "utility")}
    return {
        "kind": kind,
        "title": _title(kind, first),
        "setting": dict(first.setting),
        **axes,
        "metrics": metrics,
        "better": {name: number.better for name, number in first.numbers.items()},
        "rows": {name: len(of) for name, of in first.rows.items()},
        "entities": len({who for who in entities.values() if who}),
        "replicates": drawn,
        "runs": [_run(name, run, [*metrics, *axes.values()]) for name, run in runs.items()],
        "seeds": [_seeds(e, metrics, replicates) for e in entries if len(e.runs) > 1],
        "against": base.name,
        "differences": [_told(one) for one in differences],
        "notes": [
            *dict.fromkeys(note for run in runs.values() for note in run.notes),
            *_few_entities(first, entities),
            *_limits(differences, drawn),
        ],
    }


def seeds_of(runs: Mapping[str, Run]) -> list[Entry]:
    """What is compared: lone runs, and as one entry those that differ in the seed only."""
    together: dict[str, dict[str, Run]] = {}
    for name, run in runs.items():
        key = name if run.origin is None else f"made {run.origin.key}"
        seeds = {of.origin.seed for of in together.get(key, {}).values() if of.origin is not None}
        repeated = run.origin is not None and run.origin.seed in seeds
        together.setdefault(name if repeated else key, {})[name] = run
    methods = [_method(of) for of in together.values() if len(of) > 1]
    entries = []
    for of in together.values():
        method = _method(of)
        is_plain = methods.count(method) == 1 and method not in runs
        called = method if is_plain else f"{method} ({', '.join(of)})"
        entries.append(Entry(called if len(of) > 1 else next(iter(of)), of))
    return entries


def _method(runs: Mapping[str, Run]) -> str:
    origin = next(iter(runs.values())).origin
    return "" if origin is None else origin.method


def _axis(runs: Mapping[str, Run], axis: str) -> str | None:
    """The number that stands for an axis: of the first run that all others have measured too."""
    wished: list[str | None] = [getattr(run, axis) for run in runs.values()]
    common = shared(runs.values())
    return next((name for name in wished if name in common), wished[0])


def _title(kind: str, run: Run) -> str:
    setting = run.setting
    if kind == "bench":
        return f"{setting['benchmark']} {setting['split']}"
    return f"audits, profile {setting['profile']}" if kind == "audit" else "changes, not audited"


def _base(runs: Mapping[str, Run], entries: Sequence[Entry], against: str | None) -> Entry:
    """What the others are compared with: an entry, or one run of a group of seeds."""
    known = {entry.name: entry for entry in entries}
    single = {name: Entry(name, {name: run}) for name, run in runs.items()}
    return {**single, **known}.get(against or "", entries[0])


def _adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """The differences with their p adjusted for all that are shown."""
    tested = [one.p for one in differences if one.p is not None]
    adjusted = iter(holm(tested))
    return [one if one.p is None else replace(one, holm=next(adjusted)) for one in differences]


def _few_entities(run: Run, entities: Mapping[str, str | None]) -> list[str]:
    """Which sets have too few entities to resample them."""
    counts = {name: len({entities.get(row) or row for row in of}) for name, of in run.rows.items()}
    return [
        f"{name} has {count} entities, too few to resample: its rows are resampled instead"
        for name, count in counts.items()
        if count < min(FEWEST, len(run.rows[name]))
    ]


def _limits(differences: Sequence[Difference], replicates: int) -> list[str]:
    """What the differences cannot show."""
    tested = sum(one.p is not None for one in differences)
    said = []
    if 2 * tested / (replicates + 1) >= LEVEL:
        said.append(
            f"{tested} differences are too many for any of them to be significant after the "
            "adjustment; choose some with --metrics"
        )
    if few := sorted({one.entry for one in differences if 2 in one.seeds}):
        said.append(f"two seeds do not show their spread: {', '.join(few)} is over entities alone")
    return said


def _run(name: str, run: Run, wanted: Sequence[str | None]) -> dict[str, Any]:
    origin, erasure = run.origin, run.erasure or Number(value=None)
    return {
        "name": name,
        "path": str(run.path),
        "role": run.role,
        "method": None if origin is None else origin.method,
        "seed": None if origin is None else origin.seed,
        "verdict": run.verdict,
        "attacks": dict(run.attacks),
        "families": dict(run.families),
        "erasure_score": erasure.value,
        "erasure_interval": _list(erasure.interval),
        "numbers": {
            key: {"value": number.value, "interval": _list(number.interval), "note": number.note}
            for key, number in run.numbers.items()
            if key in wanted
        },
    }


def _seeds(entry: Entry, metrics: Sequence[str], replicates: Replicates) -> dict[str, Any]:
    """Mean and spread over the seeds, and the interval over entities and seeds."""
    numbers = {}
    for name in metrics:
        drawn = replicates.of(entry, name)
        numbers[name] = {
            "value": entry.value(name),
            "spread": entry.spread(name),
            "interval": None if drawn is None else _list(interval(drawn)),
        }
    return {
        "name": entry.name,
        "runs": list(entry.runs),
        "seeds": [run.origin.seed for run in entry.runs.values() if run.origin is not None],
        "over": "entities and seeds" if len(entry.runs) >= FEWEST_SEEDS else "entities",
        "numbers": numbers,
    }


def _told(one: Difference) -> dict[str, Any]:
    return {
        "run": one.entry,
        "against": one.against,
        "number": one.number,
        "difference": one.value,
        "interval": _list(one.interval),
        "p": one.p,
        "holm": one.holm,
        "significant": one.is_significant,
        "seeds": list(one.seeds),
        "note": one.note,
    }


def _list(bounds: tuple[float, float] | None) -> list[float] | None:
    return None if bounds is None else list(bounds)
