"""``expunge bench``: methods side by side on a benchmark, between the original and the reference.

Every model is evaluated once and its log stored; every number is computed from logs. The same
command resumes: a run whose change folder is finished and a log whose hashes fit are used again.

    out/changes/METHOD-seedN/    what `expunge.engine.run.forget` writes
    out/logs/NAME.json           what one model said of the benchmark's rows
    out/bench.json, out/table.md the result
"""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.core.atomic import write_json, write_text
from expunge.core.canonical import digest
from expunge.core.errors import Exit, ExpungeError, raise_all
from expunge.core.events import note, track
from expunge.core.paths import locked
from expunge.engine.check import Report
from expunge.lab.bench_plan import Bench, Entry, Request, prepare
from expunge.lab.bench_table import markdown
from expunge.lab.benchmark import Benchmark
from expunge.lm.folder import inspect_folder

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.lm.subject import Subject

FORMAT = "unlearning-bench/1"


def run_bench(benchmark: str, split: str | None = None, **asked: Any) -> dict[str, Any]:
    """Run methods on a benchmark, or compute its numbers from published logs.

    Args:
        benchmark: Id.
        split: One of its splits; the card's default when not given.
        **asked: The other fields of `expunge.lab.bench_plan.Request`: ``model``, ``reference``,
            ``data``, ``methods``, ``seeds``, ``seed``, ``out``, ...

    Returns:
        The content of ``bench.json`` and the path of the ``table``; for logs the benchmark's
        summary.

    Raises:
        ExpungeError: For bad input, all problems at once, before weights load. A run that fails
            its own check does not stop the others: its line says so.
    """
    request = Request(benchmark=benchmark, split=split, **asked)
    if request.logs is not None:
        return _scored(request)
    report, bench = prepare(request)
    raise_all(report.problems)
    assert bench is not None  # noqa: S101
    bench.out.mkdir(parents=True, exist_ok=True)
    with locked(bench.out):
        return _run(bench)


def check_bench(benchmark: str, split: str | None = None, **asked: Any) -> Report:
    """What is wrong with `run_bench`, and what it will need, before weights load."""
    request = Request(benchmark=benchmark, split=split, **asked)
    if request.logs is None:
        return prepare(replace(request, out=request.out or "bench"))[0]
    report = Report(estimate={"seconds": 1.0, "memory_bytes": 0.0, "disk_bytes": 0.0})
    report.attempt(lambda: _scored(request))
    return report


def _scored(request: Request) -> dict[str, Any]:
    """The summary of published logs."""
    raise_all(_missing(request))
    of = Benchmark.load(request.benchmark)
    params = of.params(request.params)
    logs = [of.read_log(path, params) for path in request.files]
    unmatched = request.allow_unmatched
    return of.summarise(*logs, params=params, allow_unmatched=unmatched, seed=request.seed)


def _missing(request: Request) -> list[ExpungeError]:
    """The logs that are not there."""
    return [
        ExpungeError("E-DATA-001", f"{log} is not there.", "a log.", "Check the path.")
        for log in request.files
        if not log.is_file()
    ]


def _run(bench: Bench) -> dict[str, Any]:
    lines = [_line(bench, entry) for entry in track(bench.entries, "bench")]
    logs = {line["name"]: line.pop("log") for line in lines}
    for line in lines:
        if (log := logs[line["name"]]) is None:
            continue
        of = bench.benchmark
        summary = of.summarise(
            log, logs.get("reference"), logs["original"], params=bench.params, seed=bench.seed
        )
        line |= {"summary": summary, "cells": of.cells(summary), "details": of.details(summary)}
    result = {
        "format": FORMAT,
        "benchmark": bench.benchmark.id,
        "version": bench.benchmark.module.CARD["version"],
        "split": bench.split,
        "params": asdict(bench.params),
        "reference_recipe": bench.benchmark.module.references(bench.split),
        "lines": lines,
    }
    write_json(bench.out / "bench.json", result)
    write_text(bench.out / "table.md", markdown(result))
    return {**result, "table": str(bench.out / "table.md")}


def _line(bench: Bench, entry: Entry) -> dict[str, Any]:
    """Make the model of one line where it has to be made, and evaluate it."""
    line: dict[str, Any] = {"name": entry.name, "method": entry.method, "seed": entry.seed}
    line |= {"folder": str(entry.folder), "failed": None, "run": None, "log": None}
    try:
        if entry.method is not None:
            line["run"] = _forgotten(bench, entry)
        line["log"] = _log(bench, entry)
    except ExpungeError as error:
        if error.exit_code != Exit.RUN_FAILED or entry.method is None:
            raise
        note(f"{entry.name} failed: {error}")
        line["failed"] = error.as_json()["error"]
    return line


def _forgotten(bench: Bench, entry: Entry) -> dict[str, Any]:
    """The run's summary; a finished one is recognised by its change folder."""
    from expunge.engine.run import forget

    return forget(**bench.task(entry))


def _log(bench: Bench, entry: Entry) -> dict[str, Any]:
    """The log of one model, from the disk when it was made with the same weights and rows."""
    path = bench.out / "logs" / f"{entry.name}.json"
    key = digest(
        {
            "weights": inspect_folder(entry.folder).digest,
            "beside": {who: inspect_folder(at).digest for who, at in _beside(bench).items()},
            "benchmark": [bench.benchmark.id, bench.benchmark.module.CARD["version"]],
            "params": asdict(bench.params),
            "rows": {name: [row.as_dict() for row in some] for name, some in bench.sets.items()},
        }
    )
    stored = _stored(path)
    if stored is not None and stored["key"] == key:
        return dict(stored["log"])
    began = time.monotonic()
    log = bench.benchmark.evaluate(_models(bench, entry), bench.sets, bench.params)
    seconds = round(time.monotonic() - began, 1)
    write_json(path, {"key": key, "seconds": seconds, "log": log}, indent=None)
    return dict(log)


def _stored(path: Path) -> dict[str, Any] | None:
    """A log on the disk; one that cannot be read is made again."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and {"key", "log"} <= stored.keys() else None


def _beside(bench: Bench) -> dict[str, Path]:
    """The other models that some measure of this benchmark looks at."""
    wanted = bench.benchmark.looks_at(bench.params)
    given = {entry.name: entry.folder for entry in bench.entries if entry.method is None}
    if bench.base is not None:
        given["base"] = bench.base
    return {who: folder for who, folder in given.items() if who in wanted}


def _models(bench: Bench, entry: Entry) -> "Models":
    from expunge.lm.gather import Models

    beside = {who: _subject(folder) for who, folder in _beside(bench).items()}
    return Models(model=_subject(entry.folder), **beside)


def _subject(folder: Path) -> "Subject":
    from expunge.engine.part_files import served
    from expunge.lm.folder import inspect_folder
    from expunge.lm.load import load
    from expunge.lm.subject import Subject

    loaded = load(folder)
    subject = Subject(loaded.model, loaded.tokenizer, digest=loaded.digest)
    return served(subject, inspect_folder(folder))
