"""How long a run will take and what it needs, from counts alone (no torch).

The model is first order: a step costs its arithmetic (6 operations a weight and token for forward
and backward) at the speed a matrix product runs at on this machine now, plus a fixed cost a block
for calling small kernels. ``benches/estimate.py`` compares it with real runs.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

START_SECONDS = 9.0
"""Importing the libraries, loading, hashing and saving a small model."""

BLOCK_SECONDS = 0.0022
"""Calling a block's kernels once, forward and backward, whatever their size."""

EFFICIENCY = 0.45
"""Share of the speed of a large matrix product that training reaches."""

BASE_BYTES = 700_000_000
"""Interpreter and libraries."""

TRAIN_BYTES = 16
"""Bytes a weight while training in float32: weight, gradient, two moments."""

FROZEN_BYTES = 4


@dataclass(frozen=True, slots=True)
class Work:
    """What a run will do.

    Attributes:
        parameters: Size of the model.
        trained: Number of weights that move.
        blocks: Number of blocks.
        width: Width of the hidden states.
        vocabulary: Size of the vocabulary.
        steps: Optimiser steps.
        tokens: Tokens of one step, padding included.
        supervised: Supervised tokens of one step.
        measured: Tokens of all measurements on the way.
        stored: Bytes of the weights on disk.
        live_anchor: Whether a second copy of the weights is held.
    """

    parameters: int
    trained: int
    blocks: int
    width: int
    vocabulary: int
    steps: int
    tokens: int
    supervised: int
    measured: int
    stored: int
    live_anchor: bool = False


def estimate(work: Work, speed: float | None = None) -> dict[str, float]:
    """Time, memory and disk of a run.

    Args:
        work: What it will do.
        speed: Multiply-adds a second; measured in a tenth of a second when not given.

    Returns:
        ``seconds`` at most (a stop level may end the run earlier), ``memory_bytes`` at the peak,
        ``disk_bytes`` while it runs.
    """
    speed = speed or matrix_speed()
    training = 6 * work.parameters * work.tokens * work.steps
    measuring = 2 * work.parameters * work.measured
    arithmetic = (training + measuring) / (2 * speed * EFFICIENCY)
    calls = BLOCK_SECONDS * work.blocks * work.steps
    hidden = 4 * work.tokens * work.blocks * work.width * 34
    logits = 12 * work.supervised * work.vocabulary
    memory = (
        BASE_BYTES
        + FROZEN_BYTES * work.parameters * (2 if work.live_anchor else 1)
        + (TRAIN_BYTES - 4) * work.trained
        + hidden
        + logits
    )
    checkpoints = 3 * 12 * work.trained
    return {
        "seconds": round(START_SECONDS + arithmetic + calls, 1),
        "memory_bytes": float(memory),
        "disk_bytes": float(2 * work.stored + checkpoints),
    }


def matrix_speed(size: int = 384, seconds: float = 0.1) -> float:
    """Multiply-adds a second of a float32 matrix product, best of several."""
    a = np.ones((size, size), dtype=np.float32)
    best, until = 0.0, time.monotonic() + seconds
    while time.monotonic() < until or best == 0.0:
        start = time.perf_counter()
        a @ a
        best = max(best, size**3 / (time.perf_counter() - start))
    return best


def shape(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Blocks, width and vocabulary of a model's ``config.json`` (0 where it does not say)."""
    text = config.get("text_config")
    found = text if isinstance(text, Mapping) else config

    def first(names: Sequence[str]) -> int:
        return next((int(found[name]) for name in names if isinstance(found.get(name), int)), 0)

    return (
        first(("num_hidden_layers", "n_layer")),
        first(("hidden_size", "n_embd")),
        first(("vocab_size",)),
    )
