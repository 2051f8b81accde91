"""Where the CPU time of one ``forget`` goes, on the embedded testbed, in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

OTHER = "the rest of `forget`"


class Clock:
    """CPU seconds by part; a part inside another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inside: list[str] = [OTHER]
        self._since = time.process_time()

    def around(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """``function``, its time booked on ``part``."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._book()
            self._inside.append(part)
            self.calls[part] += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._book()
                self._inside.pop()

        return timed

    def end(self) -> dict[str, dict[str, float]]:
        """Part -> its seconds and calls, largest first."""
        self._book()
        ordered = sorted(self.seconds, key=lambda part: -self.seconds[part])
        return {
            part: {"seconds": round(self.seconds[part], 2), "calls": self.calls[part]}
            for part in ordered
        }

    def _book(self) -> None:
        now = time.process_time()
        self.seconds[self._inside[-1]] += now - self._since
        self._since = now


def measure(seed: int) -> dict[str, Any]:
    """One run at the defaults.

    Returns:
        ``steps``, the whole process's ``cpu_seconds`` and ``parts``.

    Raises:
        RuntimeError: When the run fails.
    """
    child = subprocess.run(
        (sys.executable, __file__, str(seed)), capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if child.returncode:
        raise RuntimeError(child.stderr)
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return found


def _run(seed: int) -> dict[str, Any]:
    import torch
    import transformers

    from expunge.engine import gradient, run, session
    from expunge.lab import testbed

    torch.set_num_threads(1)
    imported = time.process_time()
    parts = (
        (run, "check_forget", "checking the request"),
        (run, "load", "loading"),
        (run, "_stop_level", "finding the stop level"),
        (session, "anchor_of", "anchor"),
        (gradient.StepGradient, "__call__", "steps: forward and backward"),
        (gradient.StepGradient, "_chunks", "steps: drawing and collating"),
        (torch.optim.AdamW, "step", "steps: update"),
        (session, "level", "measuring"),
        (transformers.Trainer, "_save_checkpoint", "checkpoints"),
        (transformers.Trainer, "train", "the Trainer's loop, clip and set-up"),
        (run, "_save", "saving"),
        (run, "write_patch", "saving"),
        (run, "folder_digest", "saving"),
    )
    clock = Clock()
    with ExitStack() as patched, tempfile.TemporaryDirectory() as folder:
        for owner, name, part in parts:
            timed = clock.around(getattr(owner, name), part)
            patched.enter_context(patch.object(owner, name, timed))
        done = run.forget(
            testbed.folder("original"), testbed.rows("forget"), testbed.rows("retain"),
            neighbour=testbed.rows("neighbour"), holdout=testbed.rows("holdout"), seed=seed,
            out=Path(folder) / "change",
        )  # fmt: skip
    spent = {"start and imports": {"seconds": round(imported, 2), "calls": 1}, **clock.end()}
    total = sum(part["seconds"] for part in spent.values())
    return {"steps": done["steps"], "cpu_seconds": round(total, 2), "parts": spent}


if __name__ == "__main__":
    print(json.dumps(_run(int(sys.argv[1]))))
