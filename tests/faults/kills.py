"""Kills a run again and again, and writes what each kill hit.

The interpreter starts once and forks for every attempt, so that twenty kills take seconds. Nothing
is computed before a fork: torch's threads would not survive it.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy

from expunge.core.rng import generator
from expunge.engine import checkpoints
from expunge.engine.run import forget
from expunge.lm.digest import folder_digest

OPTIONS: dict[str, Any] = {
    "method": "npo",
    "params": {"max_steps": 120, "lr": 1e-3, "retain_term": "nll"},
    "stop_at": "none",
}
AIMED_WITHIN = 0.03
"""Seconds after a checkpoint folder appears within which an aimed kill strikes."""

Moment = Callable[[], bool]


def attempt(folder: Path, out: Path) -> int:
    """Fork a process that gives the command; its number."""
    child = os.fork()
    if child == 0:
        try:
            forget(
                folder / "original", folder / "forget.jsonl", folder / "retain.jsonl",
                out=out, **OPTIONS,
            )  # fmt: skip
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)  # noqa: T201
            os._exit(1)
        os._exit(0)
    return child


def ended(child: int) -> bool:
    """Whether it has ended by itself.

    Raises:
        ChildProcessError: When it failed.
    """
    done, status = os.waitpid(child, os.WNOHANG)
    if done and status:
        raise ChildProcessError(f"an attempt ended with {os.waitstatus_to_exitcode(status)}")
    return bool(done)


def torn(out: Path) -> set[tuple[str, int]]:
    """Checkpoints that lack their marker or a file, each with what tells it from its successor."""
    found = set()
    for folder in (out / ".run").glob("checkpoint-*"):
        with suppress(FileNotFoundError):
            if not checkpoints.is_whole(folder):
                found.add((folder.name, folder.stat().st_ino))
    return found


def after(seconds: float) -> Moment:
    """The moment ``seconds`` from now."""
    due = time.monotonic() + seconds
    return lambda: time.monotonic() >= due


def aimed(out: Path, delay: float, patience: float) -> Moment:
    """The moment ``delay`` seconds after a new checkpoint folder is seen."""
    known, latest = torn(out), after(patience)
    due: list[Moment] = []

    def has_come() -> bool:
        if not due and torn(out) - known:
            due.append(after(delay))
        return due[0]() if due else latest()

    return has_come


def killed(folder: Path, out: Path, moment: Moment) -> bool:
    """Run until the moment comes, then kill; False when the run ended first."""
    child = attempt(folder, out)
    while not moment():
        if ended(child):
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def moments(
    out: Path, whole: float, rng: numpy.random.Generator
) -> Iterator[tuple[str, Callable[[], Moment]]]:
    """Half of them at any time of a run, half while a checkpoint is being written."""
    for kind in cycle(("any time", "checkpoint")):
        share, delay = rng.uniform(0, 0.5), rng.uniform(0, AIMED_WITHIN)
        if kind == "any time":
            yield kind, lambda share=share: after(share * whole)  # type: ignore[misc]
        else:
            yield kind, lambda delay=delay: aimed(out, delay, whole)  # type: ignore[misc]


def finish(folder: Path, out: Path) -> str:
    """Bring a run to its end; the hash of its weights."""
    child = attempt(folder, out)
    while not ended(child):
        time.sleep(0.005)
    return folder_digest(out)


def work(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """``count`` kills; every run is brought to its end by the same command."""
    started = time.monotonic()
    expected = finish(folder, folder / "whole")
    whole, out = time.monotonic() - started, folder / "out"
    hits: list[dict[str, Any]] = []
    digests: list[str] = []
    for kind, moment in moments(out, whole, generator(seed, "kills")):
        if len(hits) == count:
            break
        before = torn(out)
        if killed(folder, out, moment()):
            hits.append({"aimed at": kind, **_hit(out, torn(out) - before)})
        else:  # it reached its end first: look at it and begin again
            digests.append(folder_digest(out))
            shutil.rmtree(out)
    digests.append(finish(folder, out))
    return {"expected": expected, "digests": digests, "kills": hits, "seconds of a run": whole}


def _hit(out: Path, broken: set[tuple[str, int]]) -> dict[str, Any]:
    """What a kill left: checkpoints half written, half deleted, and the one to go on from."""
    newest = checkpoints.newest(out / ".run")
    last = checkpoints.step_of(newest) if newest else 0
    steps = sorted(checkpoints.step_of(Path(name)) for name, _ in broken)
    return {
        "half-written": [step for step in steps if step > last],
        "half-deleted": [step for step in steps if step <= last],
        "whole": last,
        "finished": (out / "change.json").exists(),
    }


if __name__ == "__main__":
    found = work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    (Path(sys.argv[1]) / "kills.json").write_text(json.dumps(found, indent=2))
