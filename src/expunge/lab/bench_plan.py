"""A benchmark made concrete before any weights load: its rows, the models, the runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.core import registry
from expunge.core.errors import ExpungeError
from expunge.engine.check import Report, check_forget
from expunge.engine.estimate import EFFICIENCY, matrix_speed
from expunge.lab.benchmark import Benchmark
from expunge.lm.folder import Folder, inspect_folder
from expunge.requests.rows import Row

STOP_AT = "none"
"""Benchmarks follow the papers' schedules; a stop level would hide where a method ends up."""

CHARACTERS_PER_TOKEN = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What ``expunge bench`` is asked.

    Attributes:
        benchmark: Id.
        split: One of its splits; the card's default when not given.
        model: Folder of the model that learned everything.
        reference: Folder of the model retrained without the forget rows.
        base: Folder of the model before it learned any of the rows.
        data: Folder with the benchmark's own files.
        methods: Ids of the methods to compare; none evaluates the given models only.
        seeds: Runs of each method.
        seed: Seed of the first run; the others follow it.
        out: Folder of the result; the same one resumes.
        settings: Method -> its parameters, where not the defaults.
        params: Parameters of the benchmark.
        logs: Published log to take the numbers from; then no model is run.
        reference_logs: The same of the reference.
        allow_unmatched: Compare logs of different rows.
    """

    benchmark: str
    split: str | None = None
    model: str | Path | None = None
    reference: str | Path | None = None
    base: str | Path | None = None
    data: str | Path | None = None
    methods: Sequence[str] | None = None
    seeds: int = 3
    seed: int = 0
    out: str | Path | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    logs: str | Path | None = None
    reference_logs: str | Path | None = None
    allow_unmatched: bool = False

    @property
    def files(self) -> list[Path]:
        """The published logs given."""
        return [Path(log) for log in (self.logs, self.reference_logs) if log is not None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table.

    Attributes:
        name: ``original``, ``reference`` or ``METHOD-seedN``.
        folder: The model, or the change to be made.
        method: Id, None for the two models given.
        seed: Seed of the run.
    """

    name: str
    folder: Path
    method: str | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A benchmark made concrete: its rows, the models, the runs.

    Attributes:
        benchmark: The benchmark.
        split: Its split.
        params: Its parameters.
        roles: Rows by role, as methods see them.
        sets: Rows on which models are compared.
        entries: Lines of the table, the original first.
        settings: Method -> parameters that replace its defaults.
        out: Folder of the result.
        seed: Of the intervals.
        base: The model before it learned any of the rows, which some numbers look at.
    """

    benchmark: Benchmark
    split: str
    params: Any
    roles: Mapping[str, Sequence[Row]]
    sets: Mapping[str, Sequence[Row]]
    entries: Sequence[Entry]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    out: Path
    seed: int = 0
    base: Path | None = None

    @property
    def original(self) -> Path:
        """The model before forgetting."""
        return self.entries[0].folder

    def task(self, entry: Entry) -> dict[str, Any]:
        """Arguments of the run that makes one change."""
        return {
            "model": self.original,
            "forget": self.roles["forget"],
            "retain": self.roles.get("retain"),
            "method": entry.method,
            "params": self.settings.get(str(entry.method), {}),
            "stop_at": STOP_AT,
            "seed": entry.seed,
            "out": entry.folder,
        }


def prepare(request: Request) -> tuple[Report, Bench | None]:
    """Read and check everything.

    Returns:
        What was found, and the bench, None when it could not be made.
    """
    report = Report(estimate={"seconds": 0.0, "memory_bytes": 0.0, "disk_bytes": 0.0})
    report.problems += _not_given(request)
    if report.problems or request.model is None or request.data is None or request.out is None:
        return report, None
    data, out = Path(request.data), Path(request.out)
    folders = {"original": inspect_folder(request.model)}
    if request.reference is not None:
        folders["reference"] = inspect_folder(request.reference)
    base = None if request.base is None else inspect_folder(request.base)
    given = [*folders.values(), *([base] if base is not None else [])]
    report.problems += [problem for folder in given for problem in folder.problems]
    methods = report.attempt(lambda: [registry.methods.card(id).id for id in request.methods or ()])
    benchmark = report.attempt(lambda: Benchmark.load(request.benchmark))
    if report.problems or benchmark is None or methods is None:
        return report, None
    module = benchmark.module
    split = request.split or module.CARD["default_split"]
    templated = folders["original"].chat_template is not None
    params = report.attempt(lambda: benchmark.params(request.params, has_template=templated))
    roles = params and report.attempt(lambda: module.splits(data, split, params))
    sets = roles and report.attempt(lambda: module.sets(data, split, params))
    if not roles or not sets:
        return report, None
    bench = Bench(
        benchmark=benchmark,
        split=split,
        params=params,
        roles=roles,
        sets=sets,
        entries=_entries(folders, methods, range(request.seed, request.seed + request.seeds), out),
        settings={registry.methods.card(id).id: its for id, its in request.settings.items()},
        out=out,
        seed=request.seed,
        base=None if base is None else base.path,
    )
    _check_runs(report, bench, folders["original"])
    return report, bench


def _not_given(request: Request) -> list[ExpungeError]:
    needed = {"--model": request.model, "--data": request.data, "--out": request.out}
    return [
        ExpungeError(
            "E-USE-007",
            f"{name} was not given.",
            "a model that learned everything, the benchmark's files, and a folder for the result.",
            f"Add {name} DIR.",
        )
        for name, value in needed.items()
        if value is None
    ]


def _entries(
    folders: Mapping[str, Folder], methods: Sequence[str], seeds: Sequence[int], out: Path
) -> list[Entry]:
    return [Entry(name, folder.path) for name, folder in folders.items()] + [
        Entry(name := f"{method}-seed{seed}", out / "changes" / name, method, seed)
        for method in methods
        for seed in seeds
    ]


def _check_runs(report: Report, bench: Bench, original: Folder) -> None:
    """What `check_forget` says of each method, and the time of everything together."""
    runs = [entry for entry in bench.entries if entry.method is not None]
    total = report.estimate
    for entry in runs:
        if entry.seed == runs[0].seed:
            single = check_forget(**bench.task(entry))
            report.problems += single.problems
            report.resolved[str(entry.method)] = single.resolved
            of_method = sum(1 for run in runs if run.method == entry.method)
            total["seconds"] += of_method * single.estimate.get("seconds", 0.0)
            total["disk_bytes"] += of_method * single.estimate.get("disk_bytes", 0.0)
            needed = single.estimate.get("memory_bytes", 0.0)
            total["memory_bytes"] = max(total["memory_bytes"], needed)
    total["seconds"] = round(total["seconds"] + len(bench.entries) * _evaluation(bench, original))


def _evaluation(bench: Bench, original: Folder) -> float:
    """Seconds to evaluate one model, to first order."""
    rows = [row for some in bench.sets.values() for row in some]
    texts = sum(
        (1 + len(row.wrong) + len(row.paraphrases)) * (len(row.prompt or "") + len(row.reply))
        for row in rows
    )
    tokens = texts / CHARACTERS_PER_TOKEN + len(rows) * getattr(bench.params, "new_tokens", 64)
    return float(original.parameters * tokens / (matrix_speed() * EFFICIENCY))
