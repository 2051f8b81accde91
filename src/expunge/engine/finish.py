"""What a method's `finish` hook is given: the trained model, before it is saved.

A step from the original weights by a multiple of what training changed covers negation (a negative
factor), interpolation (between 0 and 1) and extrapolation (above 1). It needs both ends, so the
moved weights are held twice beside the model while the hook runs.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from expunge.engine.levels import StopLevel
from expunge.engine.measure import Level
from expunge.engine.runtime import Part
from expunge.engine.task import Task

Levels = tuple[Level, Level]


class Finishing:
    """A trained model on its way to becoming a change.

    Attributes:
        model: The trained model, with its adapter if there is one, in evaluation mode.
        original: Name -> weight as it was before training, of every parameter that could move.
        task: What was asked.
        before: Forget and retain level of the original.
        stop: The level at which forgetting is enough, or None.
        steps: How many changes of the weights were made one after another, for what edits them.
        stopped_by: What ended that: ``steps``, ``level`` or ``method``.
        record: What the hook wants told of itself, plain JSON values; numbers and words also
            stand in the summary.
        runtime: The run-time part the change has beside its weights, which the hook leaves out of
            the model, or None; the engine then attaches it.
    """

    def __init__(
        self,
        model: nn.Module,
        original: Mapping[str, Tensor],
        task: Task,
        *,
        before: Levels,
        stop: StopLevel | None,
        measure: Callable[[], Levels],
    ) -> None:
        self.model, self.original, self.task = model, original, task
        self.before, self.stop = before, stop
        self.record: dict[str, Any] = {}
        self.runtime: Part | None = None
        self.steps, self.stopped_by = 1, "steps"
        self._measure = measure
        self._moved = {n: p for n, p in model.named_parameters() if n in original}
        self._trained = {n: p.detach().clone() for n, p in self._moved.items()}

    def levels(self) -> Levels:
        """Forget and retain level of the model as it is now."""
        return self._measure()

    @torch.no_grad()
    def rescale(self, factor: float, within: Collection[nn.Parameter] | None = None) -> None:
        """Put the weights at ``original + factor * (trained - original)``.

        Always from the two ends, so calls do not add up. 0 is the original and 1 the trained model,
        bit for bit. Of a low-rank adapter only the second factor is scaled.

        Args:
            factor: How far from the original to go.
            within: Parameters this holds for, the others go to the original; None means all.
        """
        for name, parameter in self._moved.items():
            own = factor if within is None or parameter in within else 0.0
            if ".lora_A." in name:
                continue
            parameter.copy_(moved(self.original[name], self._trained[name], own))


def moved(original: Tensor, trained: Tensor, factor: float) -> Tensor:
    """``original + factor * (trained - original)``, taken in float32 or better.

    What training left alone stays bit-identical, and both ends are exact.
    """
    if factor in (0.0, 1.0):
        return trained if factor else original
    exact = torch.promote_types(original.dtype, torch.float32)
    start, end = original.to(exact), trained.to(exact)
    there = (start + factor * (end - start)).to(original.dtype)
    return torch.where(original == trained, original, there)


def weights_that_move(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every weight that asks for a gradient; tied weights once."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
