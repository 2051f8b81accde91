"""Which value vectors hold what is to be forgotten, and noise for them.

A vector is named by its block and its column, ``layer:dim``; by the rows (``meta`` with ``layer``
and ``dim``, as in ConceptVectors); or it is looked for: the column whose strongest tokens share
most words with what the rows of a subject say, see `expunge.lm.traces.search`. Rows without a
subject are looked at together.

Reference: Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces, 2024.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from expunge.core.errors import ExpungeError
from expunge.core.rng import derive
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.subject import Subject
from expunge.lm.traces import Trace, search, value_vector, value_vectors

TOP = 200
"""Tokens a vector is known by."""

SPREADS = 5.0
"""Standard deviations of a matrix that noise has where none is given: about 0.1 in a 7B model."""


def traces_of(task: Task, named: Sequence[str] | None) -> list[Trace]:
    """The value vectors, each once, blocks from the bottom.

    Args:
        task: Its rows may say where their vectors are.
        named: ``layer:dim`` of each, or None.

    Raises:
        ExpungeError: ``E-USE-003`` for a name that is none, or a vector that is not there.
    """
    if named is not None:
        found = [_read(name) for name in named]
    else:
        given = [row.meta for row in task.forget if {"layer", "dim"} <= row.meta.keys()]
        found = [Trace(int(meta["layer"]), int(meta["dim"])) for meta in given] or _searched(task)
    slots = Slots(task.model)
    placed = [Trace(slots.index(trace.layer), trace.dim) for trace in found]
    for trace in placed:
        value_vector(task.model, trace)
    return sorted(set(placed))


@torch.no_grad()
def disturb(
    model: nn.Module, trace: Trace, *, deviation: float | Literal["auto"], seed: int
) -> float:
    """Add noise to one value vector, in place; the same noise for the same seed.

    Args:
        model: A model without adapters.
        trace: Which vector.
        deviation: Standard deviation of the noise; ``auto`` is `SPREADS` times that of the matrix.
        seed: Of the noise.

    Returns:
        The deviation that was used.
    """
    vector = value_vector(model, trace)
    if deviation == "auto":
        size = SPREADS * float(value_vectors(model, trace.layer).float().std())
    else:
        size = float(deviation)
    draw = torch.Generator().manual_seed(derive(seed, "needle", *trace) % 2**63)
    vector += size * torch.randn(vector.shape, generator=draw).to(vector)
    return size


def _searched(task: Task) -> list[Trace]:
    texts: dict[str, list[str]] = {}
    for row in task.forget:
        turn = row.training
        asked = turn.prompt if isinstance(turn.prompt, str) else turn.prompt[-1]["content"]
        texts.setdefault(row.subject or "", []).append(f"{asked} {turn.completion}")
    subject = Subject(task.model, task.tokenizer)
    joined = {name: " ".join(parts) for name, parts in texts.items()}
    return list(search(task.model, subject, joined, TOP).values())


def _read(name: str) -> Trace:
    layer, colon, dim = name.partition(":")
    try:
        return Trace(int(layer), int(dim) if colon else int(""))
    except ValueError:
        raise ExpungeError(
            "E-USE-003",
            f"The value vector {name!r}.",
            "a block and a column, as in 12:5041.",
            "Correct it, or leave it out: then the rows say where it is, or it is looked for.",
        ) from None
