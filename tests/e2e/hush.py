"""A method for tests: what it forgets it forgets by a run-time part alone.

Objective:
    logits' = logits - strength * [ token occurs in forget answers only ]
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.datasets import Datasets
from expunge.engine.finish import Finishing
from expunge.engine.runtime import Attached, Part

CARD = {
    "id": "hush",
    "kind": "edit",
    "summary": "Never says the words that only forget answers have.",
    "paper": "none (2026)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "nothing",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """How hard."""

    strength: float = param(50.0, help="taken from the logits", low=0.0)
    nudge: float = param(0.0, help="added to one weight of the model as well", low=0.0)


class Hushing:
    """Takes something from some logits."""

    def __init__(self, taken: Tensor) -> None:
        self.taken = taken

    def __call__(self, _: nn.Module, __: Any, output: Any) -> Any:
        output.logits = output.logits - self.taken.to(output.logits.dtype)
        return output


def edit(change: Finishing, params: Params) -> None:
    datasets = Datasets(change.task)
    said = {
        role: {token for row in datasets.items(role) for item in row for token in item.ids}
        for role in ("forget", "retain")
    }
    taken = torch.zeros(change.model.config.vocab_size)
    taken[sorted(said["forget"] - said["retain"])] = params.strength
    moves = int(taken.count_nonzero())
    change.runtime = Part(settings={"words": moves}, tensors={"taken": taken}, moves=moves)
    with torch.no_grad():
        next(change.model.parameters()).view(-1)[0] += params.nudge


def attach(model: nn.Module, part: Part) -> Attached:
    if part.tensors["taken"].shape != (model.config.vocab_size,):
        raise ValueError("another vocabulary")
    return Attached([model.register_forward_hook(Hushing(part.tensors["taken"]))])
