"""Training the vectors of a few tokens, and nothing else.

    rows <- Adam on -mean log p( supervised tokens )        every other row stays bit for bit

Only the rows are in the optimiser: no momentum and no decay reaches another one. Where embedding
and head are tied a row gets the gradient of both; where the head is a matrix of its own, its rows
move only if they are asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from math import isfinite

import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.core.events import progress
from expunge.data.encode import Encoded, collate
from expunge.lm.arch import Slots
from expunge.lm.finetune import draws
from expunge.lm.scoring import packed_logp

Around = Callable[[int], AbstractContextManager[None]]
"""The number of a step -> what is changed in the model while its gradient is taken."""


class TokenRows:
    """The rows of some tokens as what an optimiser moves.

    Args:
        model: A causal language model.
        ids: The tokens.
        head: Whether their rows of a head of its own move as well.
    """

    def __init__(self, model: nn.Module, ids: Sequence[int], *, head: bool = False) -> None:
        embed, top = _matrix(Slots(model).embed), _matrix(Slots(model).head)
        self.model, self.ids = model, list(ids)
        self._matrices = [embed, top] if head and top is not embed else [embed]
        self.rows = [nn.Parameter(one.detach()[self.ids].clone()) for one in self._matrices]

    def gradients(self, loss: Tensor) -> None:
        """Leave the gradient of a loss with the rows."""
        for row, found in zip(self.rows, torch.autograd.grad(loss, self._matrices), strict=True):
            row.grad = found[self.ids]

    @torch.no_grad()
    def write(self) -> None:
        """Put the rows into the model."""
        for row, matrix in zip(self.rows, self._matrices, strict=True):
            matrix[self.ids] = row

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing but the matrices of the rows asks for a gradient."""
        asked = {one: one.requires_grad for one in self.model.parameters()}
        try:
            for one in asked:
                one.requires_grad_(any(one is matrix for matrix in self._matrices))
            with torch.enable_grad():
                yield
        finally:
            for one, before in asked.items():
                one.requires_grad_(before)


def train_rows(
    moved: TokenRows,
    items: Sequence[Encoded],
    *,
    steps: int,
    lr: float,
    batch_size: int,
    pad: int,
    seed: int,
    around: Around = lambda _: nullcontext(),
) -> float:
    """Train the rows in place: Adam at a constant rate, without decay.

    Args:
        moved: The rows.
        items: What to train on.
        steps: Optimiser steps.
        lr: Learning rate.
        batch_size: Items of a step.
        pad: Id that pads.
        seed: Decides the order of the items.
        around: What is changed in the model during a step.

    Returns:
        Mean loss of the last tenth of the steps, nats a token.

    Raises:
        ExpungeError: ``E-RUN-002`` when the loss is not finite.
    """
    optimiser = torch.optim.Adam(moved.rows, lr=lr)
    lengths, losses = [len(item.ids) for item in items], list[float]()
    batches = islice(draws(lengths, batch_size, seed), steps)
    with moved.alone(), progress("token", steps) as bar:
        for step, batch in enumerate(batches):
            with around(step):
                made = collate([items[at] for at in batch], pad)
                loss = -packed_logp(moved.model, made).logp.mean()
                moved.gradients(loss)
            losses.append(_finite(float(loss.detach()), step))
            optimiser.step()
            moved.write()
            bar.advance(1)
    last = losses[-max(1, steps // 10) :]
    return sum(last) / max(1, len(last))


@contextmanager
def noisy(weight: Tensor, std: float, seed: int) -> Iterator[None]:
    """A weight with Gaussian noise of this width, cut off at it; afterwards as it was, bit for bit.

    Args:
        weight: What is disturbed.
        std: Standard deviation, and largest size, of the noise.
        seed: Decides the noise.
    """
    kept = weight.detach().clone()
    draw = torch.Generator(weight.device).manual_seed(seed % (1 << 63))
    noise = std * torch.randn(weight.shape, generator=draw, device=weight.device)
    try:
        with torch.no_grad():
            weight.add_(noise.clamp(-std, std).to(weight))
        yield
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def _matrix(module: nn.Module) -> nn.Parameter:
    matrix = module.weight
    assert isinstance(matrix, nn.Parameter)  # noqa: S101
    return matrix


def _finite(loss: float, step: int) -> float:
    if isfinite(loss):
        return loss
    raise ExpungeError(
        "E-RUN-002",
        f"The loss of the token is {loss} at step {step + 1}.",
        "a finite loss.",
        "Lower the learning rate (--set lr=...).",
    )
