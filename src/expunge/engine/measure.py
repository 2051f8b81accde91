"""What a run measures of itself: forget level, retain level, greedy accuracy on retain rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from expunge.core.rng import generator
from expunge.data.encode import Encoded
from expunge.engine.datasets import Datasets
from expunge.lm.scoring import packed_logp

ROWS = 200
"""At most this many rows of a role are measured; which ones depends on the seed alone."""


@dataclass(frozen=True, slots=True)
class Level:
    """Token-mean negative log-likelihood (nats) and share of greedy hits over some rows."""

    nll: float
    accuracy: float


@torch.no_grad()
def level(model: nn.Module, datasets: Datasets, items: Sequence[Encoded], batch: int = 32) -> Level:
    """Score items as they are; training and dropout flags are the caller's.

    Returns:
        Means over all supervised tokens of ``items``; NaN over nothing.
    """
    ordered = sorted(items, key=lambda item: len(item.ids))
    total, hits, tokens = 0.0, 0, 0
    for start in range(0, len(ordered), batch):
        scored = packed_logp(model, datasets.tensors(ordered[start : start + batch]))
        total -= float(scored.logp.double().sum())
        hits += int(scored.hit.sum())
        tokens += len(scored.logp)
    return Level(total / tokens, hits / tokens) if tokens else Level(math.nan, math.nan)


def sample_items(datasets: Datasets, role: str, seed: int) -> list[Encoded]:
    """Up to `ROWS` rows of a role in their own wording, the same ones throughout a run."""
    rows = datasets.items(role) if datasets.task.roles.get(role) else []
    if len(rows) <= ROWS:
        return [row[0] for row in rows]
    chosen = generator(seed, "measured", role).choice(len(rows), ROWS, replace=False)
    return [rows[int(index)][0] for index in sorted(chosen)]
