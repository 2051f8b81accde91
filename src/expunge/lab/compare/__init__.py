"""``expunge compare``: runs side by side, and what of their differences can be believed.

Runs of one kind are compared with one another: lines of a benchmark, audits, and changes of which
there is only a summary. Within a kind everything must agree that decides what a number means, and
the rows must be the same ones.

    out/comparison.json, comparison.md, comparison.csv    the result
    out/comparison.html                                   the same as a page, with plots
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_json, write_text
from expunge.core.errors import ExpungeError, nearest, raise_all
from expunge.data.jsonl import read_rows
from expunge.lab.compare.audit import audit_run, change_run
from expunge.lab.compare.bench import bench_runs
from expunge.lab.compare.files import AUDIT, BENCH, CHANGE
from expunge.lab.compare.group import group, seeds_of
from expunge.lab.compare.runs import Run, named, shared
from expunge.lab.compare.table import csv, markdown
from expunge.report import render_comparison

FORMAT = "unlearning-comparison/1"
KINDS = ("bench", "audit", "change")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What ``expunge compare`` is asked.

    Attributes:
        runs: Folders of ``expunge bench``, ``expunge audit`` or ``expunge forget``.
        against: Run or group that the others are compared with; the first when not given.
        metrics: Numbers to compare; all that the runs share when not given.
        forgetting: Number that stands for forgetting in benchmarks.
        utility: Number that stands for utility in benchmarks.
        forget: The rows of the audits, which say which of them are about the same entity.
        allow_unmatched: Compare runs that measured different rows.
        out: Folder of the result.
        seed: Of the intervals.
    """

    runs: Sequence[str | Path]
    against: str | None = None
    metrics: Sequence[str] = ()
    forgetting: str | None = None
    utility: str | None = None
    forget: str | Path | None = None
    allow_unmatched: bool = False
    out: str | Path | None = None
    seed: int = 0


def compare(**asked: Any) -> dict[str, Any]:
    """Put runs side by side.

    Args:
        **asked: The fields of `Request`.

    Returns:
        The comparison: for every kind of run a group with its runs, seeds and differences.

    Raises:
        ExpungeError: E-DATA-016 for folders that are no finished runs, E-DATA-002 and E-DATA-003
            for broken results, E-DATA-013 for runs on different rows, E-DATA-014 for runs that
            were measured differently, E-USE-001 for a name that no run or number has.
    """
    request = Request(**asked)
    runs = named(read_runs(request))
    found = {kind: {n: run for n, run in runs.items() if run.kind == kind} for kind in KINDS}
    groups = {kind: of for kind, of in found.items() if of}
    problems = [problem for of in groups.values() for problem in unlike(of)]
    if not request.allow_unmatched:
        problems += [problem for of in groups.values() for problem in unmatched(of)]
    raise_all(problems)
    _check_names(request, groups)
    result = {
        "format": FORMAT,
        "seed": request.seed,
        "unmatched": any(unmatched(of) for of in groups.values()),
        "groups": [
            group(kind, of, request.metrics, request.against, request.seed)
            for kind, of in groups.items()
        ],
    }
    return _written(result, request.out)


def read_runs(request: Request) -> list[Run]:
    """Every run that is asked for, each once."""
    rows = read_rows(request.forget, "forget") if request.forget is not None else []
    entities = {row.id: row.subject for row in rows}
    problems: list[ExpungeError] = []
    found: dict[Path, Run] = {}
    for folder in dict.fromkeys(Path(run) for run in request.runs):
        try:
            for run in _read(folder, entities):
                found.setdefault(run.path, run)
        except ExpungeError as error:
            problems.append(error)
    raise_all(problems)
    chosen = [_with_axes(run, request) for run in found.values()]
    return [run for rank, run in enumerate(chosen) if not _repeats(run, chosen[:rank])]


def _read(folder: Path, entities: Mapping[str, str | None]) -> list[Run]:
    if (folder / BENCH).is_file():
        return bench_runs(folder)
    if (folder / CHANGE).is_file():
        return [change_run(folder, entities)]
    if (folder / AUDIT).is_file():
        return [audit_run(folder, entities)]
    started = [part for part in ("logs", "changes", ".run") if (folder / part).exists()]
    found = f"{folder} is not there." if not folder.exists() else f"{folder} holds no result."
    if started:
        found = f"{folder} holds a run that has not ended ({', '.join(started)})."
    raise ExpungeError(
        "E-DATA-016",
        found,
        f"a folder with {BENCH}, {AUDIT} or {CHANGE}.",
        "Give the folders that expunge bench, audit or forget wrote to; the same command resumes "
        "a run that has not ended.",
    )


def _repeats(run: Run, before: Iterable[Run]) -> bool:
    """Whether an anchor says the same as one that is there already."""
    return run.role != "run" and any(
        other.role == run.role
        and other.kind == run.kind
        and {n: number.value for n, number in other.numbers.items()}
        == {n: number.value for n, number in run.numbers.items()}
        for other in before
    )


def _with_axes(run: Run, request: Request) -> Run:
    """A run with the numbers that were asked to stand for forgetting and utility."""
    if run.kind != "bench":
        return run
    for name in filter(None, (request.forgetting, request.utility)):
        if name not in run.numbers:
            raise _unknown(name, f"number of {run.path.name}", run.numbers)
    return replace(
        run,
        forgetting=request.forgetting or run.forgetting,
        utility=request.utility or run.utility,
    )


def unlike(runs: Mapping[str, Run]) -> list[ExpungeError]:
    """What was measured differently in runs of one kind."""
    first, *others = runs
    return [
        ExpungeError(
            "E-DATA-014",
            f"{first} and {name} were measured differently: {told}.",
            "runs measured in the same way.",
            "Compare them apart, or measure one of them again like the other.",
        )
        for name in others
        if (told := _settings(runs[first].setting, runs[name].setting))
    ]


def unmatched(runs: Mapping[str, Run]) -> list[ExpungeError]:
    """Which runs of one kind measured other rows than the first."""
    first, *others = runs
    return [
        ExpungeError(
            "E-DATA-013",
            f"{first} and {name} measured different rows: {told} in one of them only.",
            "runs that measured the same rows: a difference of other rows says nothing.",
            "Measure both on the same rows, or give --allow-unmatched, which labels the numbers.",
        )
        for name in others
        if (told := _odd(runs[first].rows, runs[name].rows))
    ]


def _settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Where two settings differ, in words."""
    differing = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return "; ".join(f"{key} {one.get(key)} and {other.get(key)}" for key in differing)


def _odd(one: Mapping[str, frozenset[str]], other: Mapping[str, frozenset[str]]) -> str:
    """How many rows of which sets only one of two runs measured, in words."""
    none: frozenset[str] = frozenset()
    odd = {key: one.get(key, none) ^ other.get(key, none) for key in {**one, **other}}
    return ", ".join(f"{len(rows)} of {key}" for key, rows in odd.items() if rows)


def _check_names(request: Request, groups: Mapping[str, Mapping[str, Run]]) -> None:
    """Refuse names that no run and no number has."""
    runs = {n for of in groups.values() for n in (*of, *(e.name for e in seeds_of(of)))}
    if request.against is not None and request.against not in runs:
        raise _unknown(request.against, "run", runs)
    numbers = {name for of in groups.values() for name in shared(of.values())}
    for name in request.metrics:
        if name not in numbers:
            raise _unknown(name, "number that all runs have", numbers)


def _unknown(name: str, kind: str, known: Iterable[str]) -> ExpungeError:
    return ExpungeError("E-USE-001", f"No {kind} {name!r}.", "a known name.", nearest(name, known))


def _written(result: dict[str, Any], out: str | Path | None) -> dict[str, Any]:
    """The result with the path of its page, once it is written."""
    if out is None:
        return {**result, "report": None}
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "comparison.json", result)
    write_text(folder / "comparison.md", markdown(result))
    write_text(folder / "comparison.csv", csv(result))
    write_text(folder / "comparison.html", render_comparison(result))
    return {**result, "report": str(folder / "comparison.html")}
