"""What methods share that move hidden states: which positions, which way, how far they are now.

A *direction* is a random unit vector with no negative component, one for each topic of the forget
rows (``meta["topic"]``; rows without one are one topic). It is a pure function of seed and topic,
so nothing but these is kept with a checkpoint.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.linalg import vector_norm

from expunge.core.families import GradientParams
from expunge.core.rng import derive, generator
from expunge.data.encode import Encoded
from expunge.engine.datasets import Datasets, wordings_of
from expunge.engine.mean import Mean, mean_of
from expunge.engine.slots.sample import one_to_one
from expunge.engine.sources import Live
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.hooks import EMBEDDING, evaluating

SEED, TOPICS = "steering.seed", "steering.topics"

Where = Literal["all", "answer"]
"""Every real position, or those that predict a supervised token."""


def at_depth(share: float, blocks: int) -> int:
    """The block at ``share`` of the depth, for papers that name a block of a 32-block model."""
    return min(round(share * blocks), blocks - 1)


def drift(view: View) -> Mean:
    """Mean over real positions and all hidden states of the distance to the anchor's."""
    layers = [EMBEDDING, *range(view.blocks)]
    now, before = view.hiddens(layers), view.anchor.hiddens(layers)
    real = view.inputs.attention_mask.bool()
    moved = [wide(now[layer][real]) - wide(before[layer][real]) for layer in layers]
    return mean_of(vector_norm(torch.stack(moved), dim=-1))


def positions_of(view: View, where: Where, *, include_first: bool) -> Tensor:
    """[B, T] bool: which positions of a view are steered; padding never is.

    Args:
        view: The rows.
        where: All real positions, or those that predict a supervised token.
        include_first: Whether the first real position counts. In most models it soaks up
            attention and has a norm far above the others', which would drown them.
    """
    real = view.inputs.attention_mask.bool()
    chosen = real if where == "all" else real & view.mask
    return chosen if include_first else chosen & (real.cumsum(1) > 1)


def distance(hidden: Tensor, target: Tensor, positions: Tensor) -> Mean:
    """Squared distance, a mean over positions and channels, in float32 at least.

    Args:
        hidden: [B, T, d].
        target: Anything that broadcasts to it, such as [B, 1, d].
        positions: [B, T] bool, which positions count.
    """
    return mean_of((wide(hidden[positions]) - target.expand_as(hidden)[positions]) ** 2)


def row_norms(hidden: Tensor, positions: Tensor) -> Tensor:
    """[B]: Euclidean length of the hidden states of each row, a mean over its positions."""
    lengths: Tensor = torch.linalg.vector_norm(wide(hidden), dim=-1) * positions
    return lengths.sum(1) / positions.sum(1).clamp(min=1)


def wide(tensor: Tensor) -> Tensor:
    """At least float32: small differences of bfloat16 values would be rounded away."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def remember_topics(task: Task) -> None:
    """Keep the seed, and the topic of every forget item, in the task's state."""
    topics = [str(row.meta.get("topic", "")) for row in task.forget for _ in wordings_of(row)]
    task.state[SEED] = derive(task.seed, "steering")
    task.state[TOPICS] = topics if any(topics) else []


def topics_of(view: View, state: Mapping[str, Any]) -> list[str]:
    """The topic of each row of a forget view."""
    known = state.get(TOPICS) or []
    return [known[item] if known else "" for item in view.row.tolist()]


def directions(view: View, state: Mapping[str, Any], width: int) -> Tensor:
    """[B, 1, d]: the direction of each row's topic, unit length, no negative component."""
    seed = int(state.get(SEED, 0))
    rows = [direction(seed, topic, width) for topic in topics_of(view, state)]
    return torch.stack(rows)[:, None].to(view.inputs.input_ids.device)


@lru_cache(maxsize=1024)
def direction(seed: int, topic: str, width: int) -> Tensor:
    """[d]: uniform on [0, 1) in every component, then scaled to unit length."""
    drawn: Tensor = torch.from_numpy(generator(seed, "direction", topic).random(width))
    unit: Tensor = drawn / torch.linalg.vector_norm(drawn)
    return unit.float()


@torch.no_grad()
def natural_norms(
    task: Task, params: GradientParams, layer: int, where: Where, *, include_first: bool
) -> dict[str, float]:
    """Mean length of a block's outputs on the first forget batch of each topic.

    Args:
        task: After `remember_topics`; its model is still the original.
        params: Says how many rows a batch has.
        layer: Block, negative from the top.
        where: See `positions_of`.
        include_first: See `positions_of`.

    Returns:
        Topic -> mean over rows and positions.
    """
    datasets = Datasets(task, device=str(task.model.device))
    found = {}
    with evaluating(task.model):
        for topic, items in _first_batches(task, params, datasets).items():
            view = View(datasets.batch(items), Live(task.model))
            positions = positions_of(view, where, include_first=include_first)
            lengths = torch.linalg.vector_norm(wide(view.hidden(layer)[positions]), dim=-1)
            found[topic] = float(lengths.mean()) if len(lengths) else 0.0
    return found


def _first_batches(
    task: Task, params: GradientParams, datasets: Datasets
) -> dict[str, list[Encoded]]:
    """The first rows of each topic, as many as a step has, in the order of the first epoch."""
    size = params.batch_size * params.accumulation
    topics = task.state[TOPICS]
    batches: dict[str, list[Encoded]] = {topic: [] for topic in topics or [""]}
    sampler = one_to_one(task, params)
    for step in range(sampler.steps_per_epoch):
        for item in datasets.drawn("forget", sampler.draw(step)):
            batch = batches[topics[item.row] if topics else ""]
            batch.extend([item] * (len(batch) < size))
        if all(len(batch) == size for batch in batches.values()):
            break
    return batches
