"""What a method makes of the way its optimiser went.

A combiner sees gradients before the optimiser, which then scales every weight by itself and adds
what earlier steps left: a gradient at right angles to another is no move at right angles to it. A
method that promises something of the move defines ``redirect`` (see `GradientMethod.redirect`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from expunge.engine.gradient import StepGradient
from expunge.engine.masks import AppliedMask


class Moves:
    """Hands the moves of each step to the method's ``redirect``, where it has one.

    Weights that are copies of masters are moved with them.

    Args:
        gradient: Of the run; tells what the latest step combined.
        mask: Of the run; knows the masters.
    """

    def __init__(self, gradient: StepGradient, mask: AppliedMask) -> None:
        self._gradient, self._mask = gradient, mask
        self._before: list[Tensor] = []

    def begin(self) -> None:
        """Before the optimiser's step: note where the weights are."""
        self._before = [held.detach().clone() for held in map(self._held, self._weights)]

    @torch.no_grad()
    def end(self) -> None:
        """After it: put them where the method says."""
        found, redirect = self._gradient.latest, self._gradient.method.redirect
        if found is None or redirect is None:
            return
        held = [self._held(weight) for weight in self._weights]
        moves = [now - before for now, before in zip(held, self._before, strict=True)]
        task, params = self._gradient.task, self._gradient.method.params
        ends = zip(self._before, redirect(moves, found, task.state, params), strict=True)
        for weight, now, (before, move) in zip(self._weights, held, ends, strict=True):
            now.copy_(before + move)
            if now is not weight:
                weight.copy_(now)
        self._before = []

    @property
    def _weights(self) -> Sequence[nn.Parameter]:
        """Those that the latest step combined gradients of; none if it did not."""
        found = self._gradient.latest
        return () if found is None or found.again is None else found.again.parameters

    def _held(self, weight: nn.Parameter) -> Tensor:
        return self._mask.masters.get(weight, weight)
