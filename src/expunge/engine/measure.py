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

ITEMS = 200
"""At most this many items of a role are measured; which ones depends on the seed alone."""


@dataclass(frozen=True, slots=True)
class Level:
    """How well a model knows some items.

    Attributes:
        nll: Token-mean negative log-likelihood, nats; NaN over nothing.
        accuracy: Share of tokens that are the greedy choice; NaN over nothing.
        rows: Mean negative log-likelihood of each item's tokens, nats.
    """

    nll: float
    accuracy: float
    rows: tuple[float, ...]

    def clipped(self, at: float) -> float:
        """Mean over items, none counted above ``at``: far-off items cannot hide known ones."""
        return sum(min(row, at) for row in self.rows) / len(self.rows)


def collapsed(before: Level, after: Level, vocabulary: int) -> bool:
    """Whether a model lost what it was to keep, so that not saying a thing shows nothing.

    It did when fewer than half of the tokens it used to get right on retain rows are still its
    first choice, or when it finds those rows no likelier than a guess among all tokens would.

    Args:
        before: Retain level of the original.
        after: Retain level of the changed model.
        vocabulary: Number of tokens there are.
    """
    lost = after.accuracy < before.accuracy / 2
    guesses = after.nll >= math.log(vocabulary) > before.nll
    return lost or guesses


@torch.no_grad()
def level(model: nn.Module, datasets: Datasets, items: Sequence[Encoded], batch: int = 32) -> Level:
    """Score items as they are; training and dropout flags are the caller's."""
    ordered = sorted(items, key=lambda item: len(item.ids))
    total, hits, tokens = 0.0, 0, 0
    rows: list[float] = []
    for start in range(0, len(ordered), batch):
        part = ordered[start : start + batch]
        scored = packed_logp(model, datasets.tensors(part))
        total -= float(scored.logp.double().sum())
        hits += int(scored.hit.sum())
        tokens += len(scored.logp)
        sums = scored.logp.new_zeros(len(part)).index_add(0, scored.row, -scored.logp)
        rows += (sums / scored.row.bincount(minlength=len(part))).tolist()
    if not tokens:
        return Level(math.nan, math.nan, ())
    return Level(total / tokens, hits / tokens, tuple(rows))


def sample_items(datasets: Datasets, role: str, seed: int, *, wordings: bool) -> list[Encoded]:
    """Up to `ITEMS` items of a role, the same ones throughout a run.

    Args:
        datasets: Where the items are.
        role: Of which role.
        seed: Decides which, where there are more.
        wordings: Whether each paraphrase is an item too, or only the row's own wording.
    """
    rows = datasets.items(role) if datasets.task.roles.get(role) else []
    items = [item for row in rows for item in (row if wordings else row[:1])]
    if len(items) <= ITEMS:
        return items
    chosen = generator(seed, "measured", role).choice(len(items), ITEMS, replace=False)
    return [items[int(index)] for index in sorted(chosen)]
