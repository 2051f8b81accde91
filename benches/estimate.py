"""How true the estimates of ``expunge check`` are: predicted against measured, case by case.

Every case runs ``check`` and then the command itself, each in a fresh process, and records the
processor time and the largest memory of that process and the largest size of its output folder.
Processor time stands for time, since a machine that others use as well makes clocks lie; with one
thread the two agree on an idle machine.

    python benches/estimate.py --out benches/results/estimate.json
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).resolve().parents[1]
RECORD = HOUSE / "benches" / "results" / "estimate.json"
PAGE = HOUSE / "docs" / "results" / "estimate.md"
FACTOR = 1.5
ALONE = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}
EXPUNGE = (sys.executable, "-c", "import sys; from expunge.cli import main; sys.exit(main())")
PACKAGES = ("expunge", "torch", "transformers", "numpy")
PEOPLE = 10
LONG = 200
"""Tokens of a long row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A Llama with random weights: width, blocks, vocabulary."""

    width: int
    blocks: int
    vocabulary: int


SHAPES = {
    "0.03M": Shape(width=32, blocks=2, vocabulary=512),
    "5M": Shape(width=256, blocks=6, vocabulary=8000),
    "30M": Shape(width=512, blocks=10, vocabulary=16000),
    "110M": Shape(width=896, blocks=12, vocabulary=32000),
}
LESSONS = {"0.03M": (100, 4e-3), "5M": (30, 1e-3), "30M": (25, 5e-4)}
"""Passes over its rows, and the rate, with which a model learns them by heart."""

TESTBED = "1M"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One command to predict and to run.

    Attributes:
        size: Which model: a key of `SHAPES`, or `TESTBED`.
        command: ``forget`` or ``audit``.
        rows: ``short``, or ``long`` (`LONG` tokens).
        steps: Optimiser steps of ``forget``; of an audit those that made the audited model.
        batch: Forget rows of a step.
        retain: Retain term.
        adapter: Whether an adapter is trained.
        options: More options of the command.
    """

    size: str
    command: str = "forget"
    rows: str = "short"
    steps: int = 40
    batch: int = 16
    retain: str = "nll"
    adapter: bool = False
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the tables call it."""
        if self.command == "audit":
            return " ".join((self.command, self.size, *self.options))
        weights = "lora" if self.adapter else "full"
        return (
            f"forget {self.size} {self.rows} rows, {weights}, {self.retain}, "
            f"batch {self.batch}, {self.steps} steps"
        )


CASES = (
    Case(size="0.03M", steps=60),
    Case(size="0.03M", rows="long", batch=4, retain="kl"),
    Case(size="0.03M", adapter=True, steps=60),
    Case(size="1M", steps=60),
    Case(size="1M", steps=60, batch=4, retain="kl"),
    Case(size="1M", steps=60, adapter=True),
    Case(size="5M"),
    Case(size="5M", rows="long", batch=4),
    Case(size="5M", rows="long", retain="kl", steps=20),
    Case(size="5M", adapter=True, retain="kl"),
    Case(size="30M", steps=20),
    Case(size="30M", retain="kl", batch=4, steps=20),
    Case(size="30M", rows="long", batch=4, steps=20),
    Case(size="30M", rows="long", batch=4, steps=20, adapter=True),
    Case(size="110M", batch=4, steps=20),
    Case(size="110M", batch=4, retain="kl", steps=20),
    Case(size="110M", steps=20, adapter=True),
    Case(size="0.03M", command="audit", options=("--profile", "fast")),
    Case(size="1M", command="audit", options=("--profile", "fast")),
    Case(size="1M", command="audit", options=("--only", "direct,prob,prefix,lens,quant4")),
    Case(size="5M", command="audit", options=("--profile", "fast")),
    Case(size="30M", command="audit", options=("--only", "direct,prob,sample,quant8")),
    Case(size="30M", command="audit", options=("--only", "direct,relearn-in")),
)


@dataclass(frozen=True, slots=True)
class Used:
    """What one process needed: processor and clock seconds, bytes of memory and disk at most."""

    processor: float
    clock: float
    memory: int
    disk: int
    printed: str


def main() -> None:
    """Run the cases and write the record and the page."""
    options = _options()
    if options.prepare:
        prepare(Path(options.prepare), options.size, options.rows, options.seed)
        return
    out = Path(options.out)
    earlier = recorded(out)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for case in CASES:
            actual = earlier.get(case.name, {}).get("actual") if options.keep else None
            if options.only in case.name and (actual or not options.keep):
                earlier[case.name] = run(case, Path(scratch), options.seed, actual)
                print(json.dumps(earlier[case.name]), flush=True)
                write(out, [earlier[c.name] for c in CASES if c.name in earlier], options.seed)


def recorded(out: Path) -> dict[str, dict[str, Any]]:
    """Case -> what an earlier run found."""
    if not out.is_file():
        return {}
    return {one["case"]: one for one in json.loads(out.read_text(encoding="utf-8"))["cases"]}


def write(out: Path, found: Sequence[dict[str, Any]], seed: int) -> None:
    """Write the record; of the one that is published the page as well."""
    record = {
        "command": "python benches/estimate.py --out benches/results/estimate.json",
        "seed": seed,
        "machine": {"system": platform.platform(), "processors": os.cpu_count(), "threads": 1},
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "within": FACTOR,
        "cases": list(found),
    }
    texts = {out: json.dumps(record, indent=2) + "\n"}
    if out.resolve() == RECORD:
        texts[PAGE] = page(record)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def run(
    case: Case, scratch: Path, seed: int, actual: dict[str, float] | None = None
) -> dict[str, Any]:
    """Predict one case, run it unless what it needs was measured before, and compare."""
    stage = staged(case, scratch, seed)
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        out = Path(name) / "out"
        given = (*arguments(case, stage), "--seed", str(seed), "--out", str(out), "--json")
        predicted = json.loads(measured(("check", case.command, *given), out).printed)["estimate"]
        kept = actual is not None
        if actual is None:
            used = measured((case.command, *given), out)
            actual = {
                "seconds": used.processor,
                "memory_bytes": used.memory,
                "disk_bytes": used.disk,
                "clock_seconds": used.clock,
            }
    return {
        "case": case.name,
        "kept": kept,
        "predicted": predicted,
        "actual": actual,
        "ratio": {key: round(predicted[key] / max(1, actual[key]), 2) for key in predicted},
    }


def arguments(case: Case, stage: Path) -> Sequence[str]:
    """The options of the command, the same for ``check``."""
    data = ("--forget", str(stage / "forget.jsonl"), "--retain", str(stage / "retain.jsonl"))
    if case.command == "audit":
        holdout = ("--holdout", str(stage / "holdout.jsonl"))
        return ("--model", str(stage / "erased"), *data, *holdout, *case.options)
    settings = {"max_steps": case.steps, "batch_size": case.batch, "retain_term": case.retain}
    sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    adapter = ("--adapter", "lora") if case.adapter else ()
    return ("--model", str(stage / "original"), *data, "--stop-at", "none", *sets, *adapter)


def staged(case: Case, scratch: Path, seed: int) -> Path:
    """The folder with model and rows of a case, made once."""
    stage = scratch / f"{case.size}-{case.rows}"
    if not stage.is_dir():
        prepared = ("--prepare", str(stage), "--size", case.size, "--rows", case.rows)
        command = (sys.executable, __file__, *prepared, "--seed", str(seed))
        subprocess.run(command, check=True, env=os.environ | ALONE)
    if case.command == "audit" and not (stage / "erased").is_dir():
        made = arguments(replace(case, command="forget", steps=60), stage)
        measured(("forget", *made, "--out", str(stage / "erased")), stage / "erased")
    return stage


def prepare(stage: Path, size: str, rows: str, seed: int) -> None:
    """Write a model and rows; audits need a model that knows them, so short ones are taught."""
    from expunge.data.jsonl import write_rows
    from expunge.lab import testbed
    from expunge.lm.subject import Subject
    from expunge.testing.micro import every_wording, micro_world, teach
    from expunge.testing.tiny import tiny_model

    stage.mkdir(parents=True)
    if size == TESTBED:
        (stage / "original").symlink_to(testbed.folder("original"))
        for role in ("forget", "retain", "holdout"):
            write_rows(stage / f"{role}.jsonl", testbed.rows(role))
        return
    shape, world = SHAPES[size], micro_world(PEOPLE, seed)
    model = tiny_model(
        "llama_tied", vocab=shape.vocabulary, hidden=shape.width, layers=shape.blocks, seed=seed
    )
    roles = {"forget": world.forget, "retain": world.retain, "holdout": world.holdout}
    if rows == "long":
        roles = {role: lengthened(some) for role, some in roles.items()}
    elif size in LESSONS:
        known = every_wording((*world.forget, *world.retain))
        epochs, lr = LESSONS[size]
        teach(Subject(model, world.tokenizer), known, epochs=epochs, seed=seed, lr=lr)
    model.save_pretrained(stage / "original")
    world.tokenizer.save_pretrained(stage / "original")
    for role, some in roles.items():
        write_rows(stage / f"{role}.jsonl", some)


def lengthened(rows: Sequence[Any]) -> tuple[Any, ...]:
    """The rows with an answer of about `LONG` tokens: their own and those of the rows after it."""
    words = [row.completion for row in rows]
    count = LONG // len(words[0].replace(".", " .").split())
    return tuple(
        replace(row, paraphrases=(), completion="".join((words[at:] + words)[:count]))
        for at, row in enumerate(rows)
    )


def measured(command: Sequence[str], folder: Path) -> Used:
    """Run a command of ``expunge`` to its end.

    Raises:
        RuntimeError: When it fails.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        with watched(folder) as sizes:
            child = subprocess.Popen(
                (*EXPUNGE, *command), stdout=out, stderr=log, env=os.environ | ALONE
            )
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), log.seek(0)
        printed = out.read()
        if child.returncode:
            raise RuntimeError(f"{' '.join(command)}: {printed}{log.read()}")
    return Used(
        processor=round(usage.ru_utime + usage.ru_stime, 2),
        clock=round(time.monotonic() - started, 2),
        memory=usage.ru_maxrss * 1024,
        disk=max(sizes),
        printed=printed,
    )


@contextmanager
def watched(folder: Path, every: float = 0.05) -> Iterator[list[int]]:
    """Sizes of a folder while the block runs."""
    sizes, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(every):
            sizes.append(size_of(folder))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield sizes
    finally:
        ended.set()
        watcher.join()
        sizes.append(size_of(folder))


def size_of(folder: Path) -> int:
    """Bytes of the files below ``folder``, which another process may be deleting."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total


def page(record: dict[str, Any]) -> str:
    """The results as a page of the documentation."""
    cases, within = record["cases"], record["within"]
    worst = {
        name: max(max(case["ratio"][name], 1 / case["ratio"][name]) for case in cases)
        for name in ("seconds", "memory_bytes")
    }
    outside = [
        case["case"]
        for case in cases
        if any(not 1 / within <= case["ratio"][name] <= within for name in worst)
    ]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    said = "; ".join(outside) or "none"
    kept = sum(case["kept"] for case in cases)
    return "\n".join(
        [
            "# How true the estimates of `check` are",
            "",
            "`expunge check` says what a run will need before weights load. Here each case was",
            "predicted and then run, on one thread. Time is processor time of the whole command,",
            "start and imports included; memory is the largest resident size of its process;",
            "disk is the largest size of its output folder. Made by",
            f"`{record['command']}` (seed {record['seed']}; {versions}).",
            "",
            f"Largest factor between predicted and measured: time {worst['seconds']:.2f}, memory",
            f"{worst['memory_bytes']:.2f}. Cases outside a factor of {within}: {said}.",
            "",
            "| case | time, s | measured | ratio | memory, MB | measured | ratio "
            "| disk, MB | measured |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
            *(_line(case) for case in cases),
            "",
            "The constants were fitted to the `forget` cases up to 30M (long rows with an adapter",
            "left out) and the audits of 0.03M and 1M; the other cases only say how far that",
            "carries, save that the memory of adapters was corrected once after them.",
            f"{kept} of {len(cases)} measurements are of earlier runs of this script, parts of it",
            "at a time while the constants were being fitted, on a machine with other work on it;",
            "their predictions were made again with the constants as they are (`--keep`).",
            "Another machine scales by two short measurements, the speed of a matrix product and",
            "the time of a small array operation, and has not been tried. Estimates are for a",
            "processor: an accelerator's time is not modelled.",
            "",
        ]
    )


def _line(case: dict[str, Any]) -> str:
    predicted, actual, ratio = case["predicted"], case["actual"], case["ratio"]
    cells = [case["case"]]
    for name, unit in (("seconds", 1), ("memory_bytes", 1e6), ("disk_bytes", 1e6)):
        digits = 1 if name != "memory_bytes" else 0
        cells += [f"{predicted[name] / unit:.{digits}f}", f"{actual[name] / unit:.{digits}f}"]
        cells += [f"{ratio[name]:.2f}"] if name != "disk_bytes" else []
    return "| " + " | ".join(cells) + " |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=RECORD, help="where the record goes")
    parser.add_argument("--only", default="", help="run the cases whose name has this in it")
    parser.add_argument(
        "--keep", action="store_true", help="predict again; keep what the record has as measured"
    )
    parser.add_argument("--scratch", default=None, help="folder for models and results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prepare", default="", help=argparse.SUPPRESS)
    parser.add_argument("--size", default=TESTBED, help=argparse.SUPPRESS)
    parser.add_argument("--rows", default="short", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
