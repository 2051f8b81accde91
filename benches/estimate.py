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

PAGE = Path(__file__).parents[1] / "docs" / "results" / "estimate.md"
FACTOR = 1.5
ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
         "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
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
    cases = [case for case in CASES if not options.only or options.only in case.name]
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        found = []
        for case in cases:
            found.append(run(case, Path(scratch), options.seed))
            print(json.dumps(found[-1]), flush=True)
    record = {
        "command": "python benches/estimate.py --out benches/results/estimate.json",
        "seed": options.seed,
        "machine": {"system": platform.platform(), "processors": os.cpu_count(), "threads": 1},
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "within": FACTOR,
        "cases": found,
    }
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if not options.only:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(record), encoding="utf-8")


def run(case: Case, scratch: Path, seed: int) -> dict[str, Any]:
    """Predict one case, run it, and compare."""
    stage = staged(case, scratch, seed)
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        out = Path(name) / "out"
        given = (*arguments(case, stage), "--seed", str(seed), "--out", str(out), "--json")
        predicted = json.loads(measured(("check", case.command, *given), out).printed)["estimate"]
        used = measured((case.command, *given), out)
    actual = {"seconds": used.processor, "memory_bytes": used.memory, "disk_bytes": used.disk}
    return {
        "case": case.name,
        "predicted": predicted,
        "actual": {**actual, "clock_seconds": used.clock},
        "ratio": {key: round(predicted[key] / max(1, actual[key]), 2) for key in actual},
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
    elif size != "110M":
        lr = 4e-3 if size == "0.03M" else 1e-3
        known = every_wording((*world.forget, *world.retain))
        teach(Subject(model, world.tokenizer), known, epochs=100 if lr > 1e-3 else 12, seed=seed, lr=lr)
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
    lines = ["# How true the estimates are", ""]
    return "\n".join(lines) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="benches/results/estimate.json")
    parser.add_argument("--only", default="", help="run the cases whose name has this in it")
    parser.add_argument("--scratch", default=None, help="folder for models and results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prepare", default="", help=argparse.SUPPRESS)
    parser.add_argument("--size", default=TESTBED, help=argparse.SUPPRESS)
    parser.add_argument("--rows", default="short", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
