"""What a run will need, from counts alone (no torch).

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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

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

ADAPTED = 1.8
"""Calls of a block with an adapter, and values it touches and holds, relative to one without."""

REFERENCE_CALL = 2.0e-7
"""Seconds of one small array operation on the machine of the fit."""

BASE_BYTES = 540_000_000
"""Interpreter and libraries."""

VALUE = 4
"""Bytes of a weight, activation or logit: float32, in which a processor computes."""

MOMENTS = 2
"""Values an optimiser keeps for each weight it moves."""

UPDATE_BYTES = 40
"""Bytes a weight moves in a step: clipping, moments and weight read and written, gradient freed."""

HELD = 24
"""Values of the width of the model that a block keeps of a token until the backward pass."""

HELD_LOGITS = 4
"""Values of a logit alive at once in training: itself, its softmax and their gradients."""

SCORED_LOGITS = 3
"""Values of a logit alive at once in scoring."""

PATCH_COPIES = 3
"""Weights as stored that are in memory for the way back: the new, the old, and the difference."""

PART_COPIES = 2
"""Times a small model is in memory when a run ends: as it is written, and as it is put in."""

KEPT_CHECKPOINTS = 2
"""Checkpoints that stay; one more lies beside them while it is written."""

LINEARS = 18
"""Widths of in- and output of a block's linear layers together, in widths of the model."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How fast this machine is now.

    Attributes:
        speed: Multiply-adds a second of a large float32 matrix product.
        slowness: Time of a small operation, relative to the machine of the fit.
    """

    speed: float
    slowness: float


@dataclass(frozen=True, slots=True)
class Size:
    """What of a model decides how long a token takes.

    Attributes:
        parameters: Number of weights.
        blocks: Number of blocks.
        width: Width of the hidden states.
        vocabulary: Size of the vocabulary.
        tied: Whether embedding and head are one matrix.
    """

    parameters: int
    blocks: int
    width: int
    vocabulary: int
    tied: bool = True

    @property
    def inside(self) -> int:
        """Weights that every token meets: all but those of the vocabulary."""
        matrices = 1 if self.tied else 2
        return max(0, self.parameters - matrices * self.vocabulary * self.width)

    def cut(self, blocks: int) -> "Size":
        """The size of its first blocks between its own embedding, final norm and head."""
        outside = self.parameters - self.inside
        return replace(
            self, blocks=blocks, parameters=outside + self.inside * blocks // max(1, self.blocks)
        )

    def products(self, tokens: float, supervised: float) -> float:
        """Multiply-adds of one forward pass."""
        return self.inside * tokens + self.vocabulary * self.width * supervised

    def values(self, tokens: float, supervised: float) -> float:
        """Values between the products of one forward pass."""
        return self.held(tokens) + SCORED_LOGITS * self.vocabulary * supervised

    def held(self, tokens: float) -> float:
        """Values the backward pass needs of a forward pass through the blocks."""
        return HELD * self.blocks * self.width * tokens


@dataclass(frozen=True, slots=True)
class Pass:
    """Some forward passes, all alike.

    Attributes:
        times: How many.
        tokens: Tokens of each, padding included.
        supervised: Supervised tokens of each.
        calls: Batches each is cut into.
    """

    times: float = 0
    tokens: float = 0
    supervised: float = 0
    calls: float = 1


@dataclass(frozen=True, slots=True)
class Ahead:
    """Whole models that a method trains before its own first step, one after another.

    A module says it by ``ahead(params, rows)``, ``rows`` being how many there are to forget and to
    keep; None where it trains none.

    Attributes:
        steps: Optimiser steps of all of them.
        rows: Rows of each step.
        models: How many; each is then asked for its outputs on all rows.
    """

    steps: float
    rows: int
    models: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Voices:
    """Small models that are heard beside the model (`expunge.engine.assistants`).

    One of them learns, the model and the others stay as they are. They are written as the run-time
    part of the change, those that learnt also as models of their own.

    Attributes:
        sizes: Of each, that of the one that learns first.
        trained: Number of weights that move.
        own: Number of weights in memory that are not the model's as well.
        alone: Whether the one that learns does so by itself; else the model and the others read the
            rows of every step as well.
        adapter: Whether its weights are frozen, and what moves stands beside them.
        each: How many rows of a view stand beside each forget row, where that is not one.
        wide: Views that are looked at in every position, not only where an answer is predicted.
    """

    sizes: Sequence[Size]
    trained: int
    own: int = 0
    alone: bool = False
    adapter: bool = False
    each: Mapping[str, int] = field(default_factory=dict)
    wide: Collection[str] = ()

    @property
    def parameters(self) -> int:
        """Weights of all of them, each by itself, as they are written."""
        return sum(size.parameters for size in self.sizes)


@dataclass(frozen=True, slots=True)
class Work:
    """What a run will do.

    Attributes:
        size: The model.
        trained: Number of weights that move.
        steps: Training passes, one for each optimiser step.
        parts: Micro-batches a step is cut into; what is held is that of one.
        scored: Passes without gradient: anchor, measurements on the way.
        checkpoints: How many are written, apart from those that long runs write every 30 seconds.
        stored: Bytes of the weights on disk.
        still: Values the anchor holds: weights as they were, remembered hidden states.
        adapter: Whether the weights of the model itself are frozen.
        recomputed: Whether activations are computed again in the backward pass.
        weight_bytes: Bytes of a weight of the blocks while a run trains, masters included.
        voices: Small models beside the model; ``trained`` and ``adapter`` then are theirs.
        heard: Passes of each of them without gradient.
        ahead: Training passes before the first step, of another model of the same size.
    """

    size: Size
    trained: int
    steps: Pass
    parts: int = 1
    scored: Sequence[Pass] = ()
    checkpoints: int = 0
    stored: int = 0
    still: int = 0
    adapter: bool = False
    recomputed: bool = False
    weight_bytes: float = VALUE
    voices: Voices | None = None
    heard: Sequence[Pass] = ()
    ahead: Pass = Pass()

    @property
    def is_adapter(self) -> bool:
        """Whether the result is an adapter beside the original, and no model."""
        return self.adapter and self.voices is None

    @property
    def learner(self) -> Size:
        """The model whose gradients are taken."""
        return self.size if self.voices is None else self.voices.sizes[0]

    @property
    def listened(self) -> Sequence[Size]:
        """The models that read the rows of a step without learning of them."""
        if self.voices is None or self.voices.alone:
            return ()
        return (self.size, *self.voices.sizes[1:])

    @property
    def again(self) -> bool:
        """Whether that happens: a small model that learns by itself is left out of it."""
        return self.recomputed and (self.voices is None or not self.voices.alone)

    @property
    def held(self) -> float:
        """Values the backward pass of a step needs."""
        kept = self.learner.held(self.steps.tokens)
        if self.again:  # what goes into each block; all of one block, and its gradients
            kept *= 1 / HELD + 2 / max(1, self.learner.blocks)
        return kept * (ADAPTED if self.adapter else 1.0)

    @property
    def logits(self) -> float:
        """Values of logits alive in a step: of the one that learns, of what it is mixed with."""
        mixed = len(self.listened) + 1 if self.listened else 0
        return (HELD_LOGITS + mixed) * self.size.vocabulary * self.steps.supervised

    @property
    def scored_logits(self) -> int:
        """Values of a logit alive at once in scoring, small models and their mixture included."""
        return SCORED_LOGITS + (0 if self.voices is None else len(self.voices.sizes) + 1)


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


def adapter_weights(rank: int, blocks: int, width: int) -> int:
    """Weights of an adapter of some rank on every linear layer of the blocks, about."""
    return rank * LINEARS * blocks * width


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


def size_of(parameters: int, config: Mapping[str, Any], tensors: Sequence[str] = ()) -> Size:
    """The size of a model, from its number of weights, its ``config.json`` and their names."""
    heads = ("lm_head.weight", "embed_out.weight")
    return Size(parameters, *shape(config), tied=not any(t.endswith(heads) for t in tensors))


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
