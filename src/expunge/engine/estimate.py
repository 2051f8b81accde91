"""What a run will need: prices on what it will do (`expunge.engine.counts`; no torch).

The model is first order. Time is the sum of six parts, each a count times a price:

    seconds = products / (EFFICIENCY * speed) + WRITE * bytes written
            + slowness * (START + CALL * block calls + TOUCH * values + MOVE * bytes of weights)

``products`` are multiply-adds: a token meets every weight of the blocks once forward and twice
backward (once where the weights are frozen), and a supervised token the vocabulary's as well.
``speed`` is this machine's for a matrix product, ``slowness`` how much longer than on the machine
of the fit it takes to call a small kernel; both are measured for a moment beforehand. Memory is
what the libraries take, the weights with what their training holds for each, and the largest of
what is alive at once: the activations of a step, or the logits of a measurement.

The prices are a non-negative least-squares fit of relative error to runs of ``benches/estimate.py``
on one thread of a server processor (EFFICIENCY, TOUCH, MOVE and WRITE), checked against a profile;
anybody can make the runs again. They hold for a processor. ``docs/results/estimate.md`` has
predicted against measured.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from expunge.engine.counts import ADAPTED, HELD_LOGITS, VALUE, Pass, Size, Voices, Work

START_SECONDS = 5.8
"""Importing the libraries, reading rows, loading and saving: a run of no steps of a tiny model."""

EFFICIENCY = 0.8
"""Share of the speed of a large matrix product that the products of a model reach."""

CALL_SECONDS = 0.0002
"""Calling the kernels of a block once, forward, whatever their size."""

TOUCH_SECONDS = 0.9e-9
"""Reading and writing a value between the products: norms, activations, softmax."""

MOVE_SECONDS = 0.75e-10
"""Moving one byte of weights, gradients or moments through an update."""

WRITE_SECONDS = 1.1e-9
"""Writing a byte of a checkpoint, or reading and hashing one of a model."""

REFERENCE_CALL = 2.0e-7
"""Seconds of one small array operation on the machine of the fit."""

BASE_BYTES = 540_000_000
"""Interpreter and libraries."""

MOMENTS = 2
"""Values an optimiser keeps for each weight it moves."""

UPDATE_BYTES = 40
"""Bytes a weight moves in a step: clipping, moments and weight read and written, gradient freed."""

PATCH_COPIES = 3
"""Weights as stored that are in memory for the way back: the new, the old, and the difference."""

PART_COPIES = 2
"""Times a small model is in memory when a run ends: as it is written, and as it is put in."""

KEPT_CHECKPOINTS = 2
"""Checkpoints that stay; one more lies beside them while it is written."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How fast this machine is now.

    Attributes:
        speed: Multiply-adds a second of a large float32 matrix product.
        slowness: Time of a small operation, relative to the machine of the fit.
    """

    speed: float
    slowness: float


def estimate(work: Work, machine: Machine | None = None, every: float = 30.0) -> dict[str, float]:
    """Time, memory and disk of a run.

    Args:
        work: What it will do.
        machine: How fast that is here; measured when not given.
        every: Seconds after which a checkpoint is written in any case.

    Returns:
        ``seconds`` at most (a stop level may end the run earlier), ``memory_bytes`` at the peak,
        ``disk_bytes`` of the output folder at the peak.
    """
    machine = machine or measured_machine()
    training = seconds_of_steps(work, machine)
    checkpoints = max(work.checkpoints, int(training / every))
    written = checkpoints * checkpoint_bytes(work.trained) + 5 * work.stored
    training += seconds_ahead(work, machine)
    return {
        "seconds": round(START_SECONDS * machine.slowness + training + WRITE_SECONDS * written, 1),
        "memory_bytes": float(memory(work)),
        "disk_bytes": float(disk(work, checkpoints)),
    }


def seconds_of_steps(work: Work, machine: Machine) -> float:
    """Seconds of all passes, with and without gradient, and of the updates."""
    steps, voices = work.steps, () if work.voices is None else work.voices.sizes
    back = 1 if work.adapter else 2
    more = ADAPTED if work.adapter else 1.0
    passes = 1 + work.again + back
    training = seconds_of(work.learner, [steps], machine, passes=passes, more=more)
    training += sum(seconds_of(size, [steps], machine) for size in work.listened)
    updates = steps.times * UPDATE_BYTES * work.trained * MOVE_SECONDS * machine.slowness
    scored = seconds_of(work.size, work.scored, machine, more=1.0 if voices else more)
    scored += sum(seconds_of(size, work.heard, machine, more=more) for size in voices)
    return training + updates + scored


def seconds_ahead(work: Work, machine: Machine) -> float:
    """Seconds of what is trained before the first step: all weights of a model move."""
    moved = work.ahead.times * UPDATE_BYTES * work.size.parameters
    training = seconds_of(work.size, [work.ahead], machine, passes=3)
    return training + moved * MOVE_SECONDS * machine.slowness


def seconds_of(
    size: Size, some: Sequence[Pass], machine: Machine, passes: int = 1, more: float = 1.0
) -> float:
    """Seconds of some passes.

    Args:
        size: The model.
        some: The passes.
        machine: How fast the machine is.
        passes: 1 forward, 2 with the gradient of activations, 3 with that of weights as well.
        more: Calls and values of a block, relative to a plain one.
    """
    total = 0.0
    for one in some:
        products = passes * size.products(one.tokens, one.supervised)
        values = passes * size.values(one.tokens, one.supervised)
        calls = passes * one.calls * (size.blocks + 1)
        small = more * (CALL_SECONDS * calls + TOUCH_SECONDS * values)
        total += one.times * (products / (EFFICIENCY * machine.speed) + machine.slowness * small)
    return total


def memory(work: Work) -> int:
    """Bytes of memory at the peak: in a step, in a measurement, or writing the way back."""
    size = work.size
    weights = VALUE * size.parameters + (work.weight_bytes - VALUE) * size.inside
    loading = VALUE * size.parameters - weights
    held = work.still + MOMENTS * work.trained + (work.voices.own if work.voices else 0)
    step = work.trained + (work.held + work.logits) / work.parts
    scored = max((p.supervised / max(1.0, p.calls) for p in work.scored), default=0.0)
    largest = max(step, work.scored_logits * size.vocabulary * scored)
    patch = 0 if work.is_adapter else PATCH_COPIES * work.stored
    if work.voices is not None:
        patch += PART_COPIES * VALUE * work.voices.parameters
    run = VALUE * held + max(VALUE * largest, patch, loading)
    return int(BASE_BYTES + weights + max(run, VALUE * held_ahead(work)))


def held_ahead(work: Work) -> float:
    """Values in memory beside the model while another one is trained before the first step.

    Its weights as they are and as they were, gradients, moments, and what a step of it needs.
    """
    if not work.ahead.times:
        return 0.0
    logits = HELD_LOGITS * work.size.vocabulary * work.ahead.supervised
    return (3 + MOMENTS) * work.size.parameters + work.size.held(work.ahead.tokens) + logits


def disk(work: Work, checkpoints: int) -> int:
    """Bytes of the output folder at the peak: the last checkpoint, or the result beside two."""
    each = checkpoint_bytes(work.trained)
    result = VALUE * work.trained if work.is_adapter else 2 * work.stored
    if work.voices is not None:  # no weight of the model moves, so there is nothing to take back
        result = work.stored + part_bytes(work.voices, work.stored / max(1, work.size.parameters))
    kept = min(checkpoints, KEPT_CHECKPOINTS) * each
    return max(min(checkpoints, KEPT_CHECKPOINTS + 1) * each, kept + result)


def part_bytes(voices: Voices, each: float) -> int:
    """Bytes of small models: all in the run-time part, the one that learnt also as a model.

    Args:
        voices: The small models.
        each: Bytes of a weight as it is stored.
    """
    return round(each * (voices.parameters + voices.sizes[0].parameters))


def checkpoint_bytes(trained: int) -> int:
    """Bytes of one checkpoint: the moved weights with their moments."""
    return VALUE * (1 + MOMENTS) * trained


@lru_cache(maxsize=1)
def measured_machine() -> Machine:
    """Measure this machine for some tenths of a second, once in a process."""
    return Machine(speed=matrix_speed(), slowness=small_call() / REFERENCE_CALL)


def matrix_speed(sizes: Sequence[int] = (64, 384), bursts: int = 6) -> float:
    """Multiply-adds a second of a float32 matrix product, best of several bursts.

    Counted in processor time of this thread, so that waiting for other programs is left out. The
    small product runs on one thread: where others are busy, several wait for one another and
    tell nothing.
    """
    matrices = [np.ones((size, size), dtype=np.float32) for size in sizes]
    return max(_burst(a) for _ in range(bursts) for a in matrices)


def _burst(a: np.ndarray[Any, Any], seconds: float = 0.015) -> float:
    done, started, until = 0, time.thread_time(), time.monotonic() + seconds
    while time.monotonic() < until or time.thread_time() <= started:
        a @ a
        done += 1
    return done * len(a) ** 3 / (time.thread_time() - started)


def small_call(calls: int = 200_000) -> float:
    """Seconds of one operation on a small array, mean over a moment, in processor time."""
    a = np.zeros(8, dtype=np.float32)
    started = time.thread_time()
    for _ in range(calls):
        np.add(a, a, a)
    return (time.thread_time() - started) / calls
