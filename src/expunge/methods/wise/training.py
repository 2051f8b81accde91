"""Training side memories: edit after edit, shard after shard, merged now and then."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from expunge.core.events import progress
from expunge.core.rng import derive
from expunge.lm.scoring import at_least_float32
from expunge.lm.ties import ties
from expunge.methods.wise.looking import Looking
from expunge.methods.wise.objective import Objective

ENOUGH = 0.02
"""An edit is done once its loss is below this, nats and distances together, and"""

STILL = 1e-4
"""moves by no more than this from one step to the next."""

NEW_SHARE = 0.4
"""What new shards count for, together, when they are merged into a memory that was merged before;
the rest is the memory's."""


@dataclass(slots=True)
class Memory:
    """A side memory.

    Attributes:
        weight: In the layout of the matrix it stands in for.
        edits: Numbers of the associations it was trained on.
        floor: The smallest distance that their prompts had when each was done.
    """

    weight: Tensor
    edits: list[int]
    floor: float


@dataclass(slots=True)
class Kept:
    """Memories made so far.

    Attributes:
        merged: Those that will not be merged any more, or only with what is new.
        shards: Those that wait for it.
    """

    merged: list[Memory] = field(default_factory=list)
    shards: list[Memory] = field(default_factory=list)


class Training:
    """Trains the memories of one layer.

    Args:
        looking: At the model.
    """

    def __init__(self, looking: Looking) -> None:
        self.looking, self.params = looking, looking.params
        self.start = at_least_float32(looking.matrix.weight.detach())
        self.weight = self.start.clone()
        self.mask = torch.ones_like(self.start, dtype=torch.bool)

    def memories(self) -> list[Memory]:
        """Make all edits; save a shard every ``save_freq``, merge every ``merge_freq``."""
        params, kept, count = self.params, Kept(), len(self.looking.asked)
        with progress("wise", count) as bar:
            for number, start in enumerate(range(0, count, params.save_freq)):
                shard = range(start, min(start + params.save_freq, count))
                self.weight, self.mask = self.start.clone(), self.drawn(number)
                floor = torch.inf
                for first in range(0, len(shard), params.batch_size):
                    batch = shard[first : first + params.batch_size]
                    floor = min(floor, self.edit(batch, kept, shard[:first]))
                    bar.advance(len(batch))
                kept.shards.append(Memory(self.weight, list(shard), floor))
                if shard.stop % params.merge_freq == 0:
                    self.merge(kept)
        if not params.retrieve and len(kept.merged) + len(kept.shards) > 1:
            self.merge(kept)
        return [*kept.merged, *kept.shards]

    def merge(self, kept: Kept) -> None:
        """Make one memory of the shards; without ``retrieve`` of the one before as well."""
        old = [] if self.params.retrieve else kept.merged
        new = (NEW_SHARE if old else 1.0) / len(kept.shards)
        parts = [*kept.shards, *old]
        weights = [new] * len(kept.shards) + [1 - NEW_SHARE] * len(old)
        change = ties([one.weight - self.start for one in parts], weights, self.params.density)
        edits = sorted(edit for one in parts for edit in one.edits)
        made = Memory(self.start + change, edits, min(one.floor for one in parts))
        kept.merged = [*kept.merged, made] if self.params.retrieve else [made]
        kept.shards = []

    def edit(self, batch: Sequence[int], kept: Kept, before: Sequence[int]) -> float:
        """Train the weight on some associations.

        Args:
            batch: Their numbers.
            kept: Memories made so far.
            before: Numbers of those that this memory was trained on already.

        Returns:
            The smallest distance that one of them has then, a mean over its prompts.
        """
        params = self.params
        earlier = [*(edit for one in kept.shards for edit in one.edits), *before]
        others = [one.edits for one in kept.merged] if params.retrieve else []
        objective = Objective(self.looking, batch, earlier, others)
        last = torch.inf
        for _ in range(params.v_num_grad_steps):
            weight = self.weight.requires_grad_()
            with torch.enable_grad():
                loss = objective(weight)
                value = float(loss.detach())
                if abs(value - last) <= STILL and value <= ENOUGH:
                    break
                (gradient,) = torch.autograd.grad(loss, weight)
            self.weight, last = self.moved(weight.detach(), gradient), value
        self.weight = self.weight.detach()
        with torch.no_grad():
            return objective.floor(self.weight)

    def moved(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """One step of descent, where the mask lets it, and no farther than the clamp."""
        params = self.params
        step = weight - params.v_lr * (gradient + params.weight_decay * weight)
        near = step.clamp(self.start - params.norm_constraint, self.start + params.norm_constraint)
        return torch.where(self.mask, near, self.start)

    def drawn(self, number: int) -> Tensor:
        """The mask of a shard: each entry moves with a chance of ``mask_ratio``."""
        draw = torch.Generator().manual_seed(derive(self.looking.seed, "wise", "mask", number))
        chance = torch.rand(self.start.shape, generator=draw)
        return (chance < self.params.mask_ratio).to(self.start.device)
