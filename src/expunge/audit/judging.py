"""From what the attacks got to what each says: the runs that count, the statistic, the outcome."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from expunge.audit.controls import Control
from expunge.audit.differences import Placements, cost, differ
from expunge.audit.mounting import table, values_table
from expunge.audit.outcomes import Judged, Rules, judge
from expunge.audit.plan import Entry, decides, statistic_of, threshold_of
from expunge.audit.record import Mounted
from expunge.audit.statistics import (
    GAP,
    REPLICATES,
    FloatArray,
    Leaks,
    Recovery,
    Resamples,
    mean_leak,
    recover,
    resamples,
    unit_of,
)
from expunge.core.results import Leak
from expunge.requests.rows import Row

HOLDOUT, CLEAN = "holdout", "clean"
"""What stands beside the leaks of a difference, and of a cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What all attacks of one audit say.

    Attributes:
        unit: Unit of resampling, ``subject`` or ``fact``.
        recoveries: Attack -> its excess recovery, or the difference its gate looks at.
        judged: Attack -> outcome.
    """

    unit: str
    recoveries: Mapping[str, Recovery]
    judged: Mapping[str, Judged]


def judged(
    mounted: Sequence[Mounted],
    rows: Sequence[Row],
    control: Control | None,
    holdout: Sequence[Row],
    seed: int,
) -> Said:
    """Judge every attack.

    Args:
        mounted: The attacks.
        rows: The attacked rows.
        control: What stood for a model that never knew; None when nothing was attacked.
        holdout: Rows nobody trained on.
        seed: Seed of the audit.
    """
    unit, units = unit_of(rows)
    if control is None:
        return Said(unit=unit, recoveries={}, judged={})
    draws = resamples(units, control.units, seed)
    tested = _Tested(rows, control.rows, holdout)
    recoveries, invalid = {}, {}
    for one in mounted:
        runs, why = valid_runs(one)
        if why:
            invalid[one.name] = why
        recoveries[one.name] = _recovery(one, runs, tested, draws)
    kinds = {one.name: statistic_of(one.entry.id) for one in mounted}
    rules = Rules(
        invalid=invalid,
        differences=frozenset(name for name, kind in kinds.items() if kind == "difference"),
        costs=frozenset(name for name, kind in kinds.items() if kind == "cost"),
        reported=frozenset(one.name for one in mounted if not decides(one.entry.id)),
    )
    return Said(unit=unit, recoveries=recoveries, judged=judge(recoveries, rules))


@dataclass(frozen=True, slots=True)
class _Tested:
    """Which rows an audit is about."""

    forget: Sequence[Row]
    control: Sequence[Row]
    holdout: Sequence[Row]


def _recovery(one: Mounted, runs: Sequence[int], rows: _Tested, draws: Resamples) -> Recovery:
    kept = {
        who: [leaks[run] for run in runs if run < len(leaks)] for who, leaks in one.leaks().items()
    }
    if statistic_of(one.entry.id) == "cost":
        (leak,) = kept["model"]
        clean = leak.beside.get(CLEAN, {})
        return cost(leak.per_row, clean, draws.seed, gate_of(one), REPLICATES)
    untested = [Leak(per_row={})]
    leaks = Leaks(
        original=table(kept["original"], rows.forget),
        model=table(kept["model"] or untested, rows.forget),
        control=table(kept["control"] or untested, rows.control),
    )
    if statistic_of(one.entry.id) == "recovery":
        return recover(leaks, draws, gate_of(one))
    placements = Placements(
        model=_placed(kept["model"], rows.holdout),
        control=_placed(kept["control"], rows.holdout) if kept["control"] else None,
        units=unit_of(rows.holdout)[1],
    )
    return differ(leaks, placements, draws, gate_of(one))


def _placed(leaks: Sequence[Leak], holdout: Sequence[Row]) -> FloatArray:
    return values_table([leak.beside.get(HOLDOUT, {}) for leak in leaks], holdout)


def valid_runs(one: Mounted) -> tuple[list[int], str]:
    """Runs that count, and why none does; then all are kept for the record."""
    everyone = list(range(len(one.model or one.original)))
    asked = one.leaks()
    broken = {
        run: f"{leak.invalid} ({who})"
        for who, leaks in asked.items()
        for run, leak in enumerate(leaks)
        if leak.invalid
    }
    if len({leak.threshold for leaks in asked.values() for leak in leaks}) > 1:
        return everyone, "original, model and control were not tested in the same form"
    valid = [run for run in everyone if run not in broken]
    return (valid, "") if valid else (everyone, next(iter(broken.values())))


def is_hopeless(entry: Entry, original: Sequence[Leak], rows: Sequence[Row]) -> bool:
    """Whether an attack gets so little out of the original that it can show nothing of a model.

    No control leaks less than nothing, so the original's lead over it is at most its own leak. Then
    the attack is uninformative whatever it gets out of the model, which need not be asked.
    """
    if statistic_of(entry.id) != "recovery" or any(leak.invalid for leak in original):
        return False
    return mean_leak(table(original, rows)) < GAP


def gate_of(one: Mounted) -> float:
    """The threshold of the form in which the attack ran."""
    replaced = [
        leak.threshold
        for leaks in one.leaks().values()
        for leak in leaks
        if leak.threshold is not None
    ]
    return max(replaced, default=threshold_of(one.entry.id))
