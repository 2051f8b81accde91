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

from expunge.core.rng import generator
from expunge.engine import checkpoints
from expunge.engine.run import forget
from expunge.lm.digest import folder_digest

OPTIONS: dict[str, Any] = {
    "method": "npo",
    "params": {"max_steps": 120, "lr": 1e-3, "retain_term": "nll"},
    "stop_at": "none",
}
AIMED_WITHIN = 0.01
"""Seconds after a checkpoint folder appears within which an aimed kill strikes."""
GLANCE = 0.0005
"""Seconds between two looks at a run."""


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
    return bool(done) and succeeded(status)


def stands_still(child: int) -> bool:
    """Stop it where it is; False when it ended before.

    Raises:
        ChildProcessError: When it failed.
    """
    os.kill(child, signal.SIGSTOP)
    _, status = os.waitpid(child, os.WUNTRACED)
    return os.WIFSTOPPED(status) or not succeeded(status)


def succeeded(status: int) -> bool:
    """True, unless it failed."""
    if status:
        raise ChildProcessError(f"an attempt ended with {os.waitstatus_to_exitcode(status)}")
    return True


class Watch:
    """Tells the checkpoints that an attempt broke from those that earlier kills left broken.

    A resumed run first deletes what was left, so a name that was gone for a moment is a new one.

    Attributes:
        half_written: Steps of incomplete checkpoints newer than the last whole one.
        half_deleted: Steps of incomplete checkpoints older than it.
        whole: Step of the last whole checkpoint, 0 without one.
    """

    def __init__(self, out: Path) -> None:
        self._run = out / ".run"
        self._left = set(self._states(whole=False))
        self.look()

    def look(self) -> None:
        """Bring the attributes up to date."""
        broken = set(self._states(whole=False))
        self._left &= broken
        self.whole = max(self._states(whole=True), default=0)
        self.half_written = sorted(x for x in broken - self._left if x > self.whole)
        self.half_deleted = sorted(x for x in broken - self._left if x < self.whole)

    def _states(self, *, whole: bool) -> Iterator[int]:
        for folder in self._run.glob("checkpoint-*"):
            with suppress(FileNotFoundError):  # it is being deleted
                if checkpoints.is_whole(folder) is whole:
                    yield checkpoints.step_of(folder)


Aim = Callable[[Watch], bool]


def at_any_time(seconds: float) -> Aim:
    """``seconds`` from now, whatever the run does then."""
    due = time.monotonic() + seconds
    return lambda _: time.monotonic() >= due


def at_writing(watch: Watch) -> bool:
    """While a checkpoint is being written."""
    return bool(watch.half_written)


def at_writing_the_next(begun: Watch) -> Aim:
    """While a checkpoint is being written that follows a whole one of the same attempt.

    Without such kills a run could be killed before its first whole checkpoint again and again.
    """
    return lambda watch: watch.whole > begun.whole and at_writing(watch)


def killed(folder: Path, out: Path, aim: Aim, delay: Callable[[], float]) -> Watch | None:
    """Run until the aim is met, let some time pass, and kill; None when the run ended first.

    Under load a run may have left what was aimed at before it stands still: then it goes on, and
    the kill waits for the next time.
    """
    watch = Watch(out)
    child = attempt(folder, out)
    while not ended(child):
        watch.look()
        if aim(watch):
            time.sleep(delay())
            if not stands_still(child):
                return None
            watch.look()
            if aim(watch):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return watch
            os.kill(child, signal.SIGCONT)
        time.sleep(GLANCE)
    return None


def finish(folder: Path, out: Path) -> str:
    """Bring a run to its end; the hash of its weights."""
    child = attempt(folder, out)
    while not ended(child):
        time.sleep(0.005)
    return folder_digest(out)


def work(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """``count`` kills; every run is brought to its end by the same command.

    Half of the kills come at any time of a run, half while a checkpoint is being written: the first
    of an attempt and a later one in turn.
    """
    started = time.monotonic()
    expected = finish(folder, folder / "whole")
    whole, out = time.monotonic() - started, folder / "out"
    hits: list[dict[str, Any]] = []
    digests: list[str] = []
    rng = generator(seed, "kills")
    for kind in cycle(("any time", "checkpoint", "any time", "later checkpoint")):
        if len(hits) == count:
            break
        if kind == "any time":
            watch = killed(folder, out, at_any_time(rng.uniform(0, 0.5) * whole), lambda: 0.0)
        else:
            aim = at_writing if kind == "checkpoint" else at_writing_the_next(Watch(out))
            watch = killed(folder, out, aim, lambda: rng.uniform(0, AIMED_WITHIN))
        if watch:
            hits.append({"aimed at": kind, **_hit(out, watch)})
        else:  # it reached its end first: look at it and begin again
            digests.append(folder_digest(out))
            shutil.rmtree(out)
    digests.append(finish(folder, out))
    return {"expected": expected, "digests": digests, "kills": hits, "seconds of a run": whole}


def _hit(out: Path, watch: Watch) -> dict[str, Any]:
    """What a kill left: checkpoints half written, half deleted, and the one to go on from."""
    return {
        "half-written": watch.half_written,
        "half-deleted": watch.half_deleted,
        "whole": watch.whole,
        "finished": (out / "change.json").exists(),
    }


if __name__ == "__main__":
    found = work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    (Path(sys.argv[1]) / "kills.json").write_text(json.dumps(found, indent=2))
