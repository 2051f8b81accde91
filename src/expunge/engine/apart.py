"""A term on rows that stand in no view of the step: its value and its gradient, for combiners.

Both are those of the whole draw, however it is cut and over however many processes: numerators and
their gradients are summed, and divided by the denominator of all of them. What is not a mean
itself, such as the square of one, can then be made from whole numbers.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from expunge.core.families import GradientParams
from expunge.core.rng import generator
from expunge.data.encode import Encoded
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.mean import Mean
from expunge.engine.slots.combine import Again
from expunge.engine.sources import Live
from expunge.engine.view import View
from expunge.engine.world import World
from expunge.requests.rows import Turn


def rows_apart(again: Again, name: str, size: int, params: GradientParams) -> list[Inputs]:
    """This process's part of ``size`` rows drawn for this step, in batches as the step's own.

    A draw is a pure function of seed, name and step.

    Args:
        again: The step.
        name: Of what ``prepare`` put beside the rows of a role, the same whichever row that is; its
            candidates are drawn with replacement.
        size: Rows of all processes together; at least one for each.
        params: Say how many rows a batch has.
    """
    task, paired = again.task, again.task.paired[name]
    world, any_row = task.world or World(), task.roles[paired.beside][0]
    drawn = generator(task.seed, name, again.step).integers(paired.count, size=size)
    mine = drawn[world.rank :: world.size]
    batches = min(-(-size // (world.size * params.batch_size)), size // world.size)
    datasets = Datasets(task, device=str(task.model.device), packing=params.packing)

    def encoded(candidate: int) -> Encoded:
        made = paired.make(any_row, 0, candidate)
        assert isinstance(made, Turn)  # noqa: S101
        return task.encoder.encode(made, row=candidate)

    parts = np.array_split(mine, batches)
    return [datasets.batch([encoded(int(candidate)) for candidate in part]) for part in parts]


def value_and_gradient(
    again: Again, parts: Sequence[Inputs], term: Callable[[View], Mean]
) -> tuple[float, list[Tensor]]:
    """The mean that ``term`` is over all parts of all processes, and its gradient.

    Args:
        again: The step; the model is left without gradients.
        parts: The batches of this process.
        term: The denominator may depend on the model if no gradient is to flow through it.
    """
    model, world = again.task.model, again.task.world or World()
    sums = torch.zeros(2, dtype=torch.float64)
    model.zero_grad()
    for inputs in parts:
        mean = term(View(inputs, Live(model)))
        mean.num.backward()  # type: ignore[no-untyped-call]
        sums += torch.tensor([float(mean.num.detach()), float(mean.den)], dtype=torch.float64)
    num, den = world.total(sums).tolist()
    sides = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in again.parameters]
    model.zero_grad()
    return num / den, [world.total(gradient) / den for gradient in sides]
