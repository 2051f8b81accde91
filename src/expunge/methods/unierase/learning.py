"""The training of the token: plain, through the chat template, and under noise."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from expunge.core.rng import derive
from expunge.data.encode import Encoded
from expunge.engine import rates
from expunge.engine.task import Task
from expunge.engine.token_rows import TokenRows, noisy, train_rows
from expunge.lm.arch import Slots
from expunge.lm.scoring import padding_id
from expunge.methods.unierase.lessons import Lessons

if TYPE_CHECKING:
    from expunge.methods.unierase import Params

PASS = 25
"""Steps that a pass over the questions counts at least: 400 of them, 16 at a time."""

LATER = 0.1
"""Rate of the later parts, where it is not given, in that of the first one."""


class Course:
    """What a token goes through.

    Args:
        task: Whose model.
        moved: The rows of the tokens that are trained.
        lessons: What they are trained on.
        params: Of the method.
    """

    def __init__(self, task: Task, moved: TokenRows, lessons: Lessons, params: "Params") -> None:
        self.task, self.moved, self.lessons, self.params = task, moved, lessons, params
        self.size = sum(parameter.numel() for parameter in task.model.parameters())
        self.lr = rates.learning_rate(params, self.size, adapter=False)
        given = params.later_lr
        self.later_lr = LATER * self.lr if given == "auto" else float(given)

    def learn(self) -> float:
        """The plain part, then that with the chat template; the loss at the end, nats a token."""
        params, plain = self.params, self.lessons.plain
        steps = self.steps(params.epochs, plain)
        if self.size < rates.FULL_SIZE:
            steps = max(steps, rates.SMALL_MODEL_STEPS)
        loss = self.part("plain", plain, steps, self.lr)
        if params.chat_epochs:
            items = self.lessons.items
            loss = self.part("both", items, self.steps(params.chat_epochs, items), self.later_lr)
        return loss

    def harden(self, layers: Sequence[int]) -> dict[str, float]:
        """Train on while the output matrix of one block after the other is noisy.

        Returns:
            Block -> width of its noise, in standard deviations of the matrix.
        """
        widths, items = {}, self.lessons.items
        for layer in layers if self.params.noise != "none" and self.params.noise_epochs else ():
            weight = Slots(self.task.model).module(layer, "mlp_out").get_parameter("weight")
            width, spread = self.width_of(weight), _std(weight)
            widths[str(layer)] = width / spread if spread else 0.0
            around = partial(self.noise, weight, width, layer)
            steps = self.steps(self.params.noise_epochs, items)
            self.part(f"noise {layer}", items, steps, self.later_lr, around)
        return widths

    def steps(self, epochs: int, items: Sequence[Encoded]) -> int:
        """Steps of so many passes."""
        return epochs * max(PASS, -(-len(items) // self.params.batch_size))

    def part(
        self,
        name: str,
        items: Sequence[Encoded],
        steps: int,
        lr: float,
        around: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext(),
    ) -> float:
        """Train on items; the loss at the end."""
        return train_rows(
            self.moved, items, steps=steps, lr=lr, batch_size=self.params.batch_size,
            pad=padding_id(self.task.tokenizer), seed=derive(self.task.seed, "token", name),
            around=around,
        )  # fmt: skip

    def noise(
        self, weight: Tensor, width: float, layer: int, step: int
    ) -> AbstractContextManager[None]:
        """The noise of one step."""
        return noisy(weight, width, derive(self.task.seed, "noise", layer, step))

    def width_of(self, weight: Tensor) -> float:
        """How wide the noise on a matrix is."""
        if self.params.noise == "mean":
            return abs(float(weight.detach().to(torch.float64).mean()))
        return self.params.noise_scale * _std(weight)


def _std(weight: Tensor) -> float:
    return float(weight.detach().to(torch.float64).std())
