"""What every benchmark costs, on its own files and a tiny model: docs/results/benchmarks.md.

Each benchmark runs in a process of its own with its default settings, on at most ``--rows`` rows a
set; one whose files are not under ``--data`` runs on its replica. What is in
benches/results/benchmarks.json with the same settings is kept, so a stopped run goes on where it
was.

    python benches/benchmarks.py [--data ROOT] [--rows 24] [--seed 0] [--only tofu,muse] [--again]
"""

import argparse
import json
import platform
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks_cost import Job, measure
from benchmarks_page import page

from expunge.core import registry
from expunge.core.atomic import write_json, write_text

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benches/results/benchmarks.json"
PAGE = ROOT / "docs/results/benchmarks.md"
PACKAGES = ("expunge", "torch", "transformers")
ROWS, SEED = 24, 0


def main() -> None:
    """Measure what is missing; write record and page after each benchmark."""
    given = _options()
    ids = registry.benchmarks.ids()
    lines = {id: line for id, line in stored().items() if id in ids}
    for id in given.only.split(",") if given.only else ids:
        job = Job(id, given.data, given.rows, given.seed)
        if given.again or not fits(lines.get(id, {}), job):
            lines[id] = line = apart(job)
            print(json.dumps({name: line.get(name) for name in ("id", "failed", "cpu_seconds")}))
        write(lines, given)


def fits(line: Mapping[str, Any], job: Job) -> bool:
    """Whether a stored line is what a job would give, or the same of real files."""
    better = replace(job, data=job.data or Path())
    return line.get("key") in (job.key, better.key)


def apart(job: Job) -> dict[str, Any]:
    """Measure one benchmark in a new process; whatever goes wrong there is a line of the record."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(attempt, job).result()
        except BrokenProcessPool:
            return {"id": job.id, "failed": "the process ended before it had a result"}


def attempt(job: Job) -> dict[str, Any]:
    """A line, or one that says why there is none; it has no key, so the next run tries again.

    Errors are turned into words on this side, since not all of them can cross to another process.
    """
    try:
        return measure(job)
    except Exception as error:  # a benchmark may fail in any way
        said = f"{type(error).__name__}: {error}"
        return {"id": job.id, "failed": said.replace(f"{job.data}/", "")[:300]}


def stored() -> dict[str, Any]:
    """Lines of the last run, by benchmark."""
    if not RECORD.is_file():
        return {}
    return {line["id"]: line for line in json.loads(RECORD.read_text(encoding="utf-8"))["lines"]}


def write(lines: Mapping[str, Any], given: argparse.Namespace) -> None:
    """The record and the page."""
    of_files = any(line.get("real") for line in lines.values())
    record = {
        "command": "python benches/benchmarks.py" + (" --data ROOT" if of_files else ""),
        "seed": given.seed,
        "most": given.rows,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "lines": [lines[id] for id in sorted(lines)],
    }
    write_json(RECORD, record, indent=1)
    write_text(PAGE, page(record))


def _options() -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--data", type=Path, help="folder with one folder for each benchmark")
    asked.add_argument("--rows", type=int, default=ROWS, help="most rows of a set")
    asked.add_argument("--seed", type=int, default=SEED)
    asked.add_argument("--only", default="", help="ids of benchmarks; default all")
    asked.add_argument("--again", action="store_true", help="do not keep stored lines")
    return asked.parse_args()


if __name__ == "__main__":
    main()
