"""Checkpoints that count only when they are whole.

`transformers.Trainer` writes a checkpoint file by file. A folder counts once ``complete.json``
names every file with its size; the marker is written last. Nothing else is ever resumed from.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from expunge.core.atomic import write_json

MARKER = "complete.json"
STATE = "method_state.json"
TENSORS = "method_state.safetensors"
KEEP = 2

SHARE = 0.05
"""A checkpoint is written whenever this share of the steps is done."""

SECONDS = 30.0
"""And whenever the last one is older."""


def is_due(step: int, steps: int) -> bool:
    """Whether a step of a run of so many is followed by a checkpoint, the last one always."""
    return step % max(1, math.ceil(steps * SHARE)) == 0 or step >= steps


def seal(folder: Path, state: dict[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
    """Make a checkpoint count: the method's state and then the marker.

    Args:
        folder: A checkpoint folder whose files are all written.
        state: The method's own state, plain JSON values.
        tensors: And what of it are tensors.
    """
    (folder / "training_args.bin").unlink(missing_ok=True)
    write_json(folder / STATE, state)
    if tensors:
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, folder / TENSORS)
    write_json(folder / MARKER, {"files": _sizes(folder)})


def newest(run: Path) -> Path | None:
    """The newest whole checkpoint below ``run``, or None."""
    return next((folder for folder in reversed(_sorted(run)) if is_whole(folder)), None)


def is_whole(folder: Path) -> bool:
    """Whether the marker is there and every file it names has its size."""
    try:
        named = json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    found = _sizes(folder)
    return isinstance(named, dict) and all(found.get(name) == size for name, size in named.items())


def state_of(folder: Path) -> dict[str, Any]:
    """The method's state as it was at this checkpoint."""
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return state


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of the method's state as they were at this checkpoint."""
    path = folder / TENSORS
    return load_file(path) if path.is_file() else {}


def step_of(folder: Path) -> int:
    """The number of optimiser steps a checkpoint folder stands for."""
    return int(folder.name.rpartition("-")[2])


def prune(run: Path) -> None:
    """Delete all but the newest two whole checkpoints, and whatever is broken before them."""
    whole = [folder for folder in _sorted(run) if is_whole(folder)][-KEEP:]
    for folder in _sorted(run):
        if whole and folder not in whole and step_of(folder) < step_of(whole[-1]):
            shutil.rmtree(folder, ignore_errors=True)


def discard_after(run: Path, kept: Path | None) -> None:
    """Delete checkpoints newer than ``kept``: broken ones that a resumed run would write into."""
    for folder in _sorted(run):
        if kept is None or step_of(folder) > step_of(kept):
            shutil.rmtree(folder)


def _sorted(run: Path) -> list[Path]:
    folders = [f for f in run.glob("checkpoint-*") if f.is_dir() and f.name[11:].isdigit()]
    return sorted(folders, key=step_of)


def _sizes(folder: Path) -> dict[str, int]:
    def files() -> Iterator[Path]:
        return (f for f in sorted(folder.rglob("*")) if f.is_file() and f.name != MARKER)

    return {str(f.relative_to(folder)): f.stat().st_size for f in files()}
