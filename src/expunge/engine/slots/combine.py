"""Combiners: from the gradients of the terms to one gradient.

A method that names none gets the weighted sum of both terms in one backward pass. A combiner sees
whole, accumulated gradients, one tensor per trainable parameter and term, already divided by the
step's denominators and summed over processes. Under FSDP2 each process holds shards of them: sums
and scales are as ever, but an inner product or a norm must become whole (``full_tensor()``) before
it becomes a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from expunge.core.families import GradientParams
from expunge.engine.task import Task


class Again(Protocol):
    """The step once more, at the weights as they are then: for what looks around a point.

    A combiner may move the weights for that. What it leaves moved when it returns is part of the
    step; frozen weights are put back in any case.

    Attributes:
        task: What is being forgotten, and the model whose weights may be moved.
        parameters: The trainable ones, in the order of all gradients.
        step: Index of the step.
    """

    task: Task
    parameters: Sequence[nn.Parameter]
    step: int

    def losses(self) -> Mapping[str, Tensor]:
        """``forget``, ``retain`` -> value over the whole step, with the graph that made it.

        For derivatives of gradients; they need attention that has them (``eager``).

        Raises:
            ExpungeError: ``E-USE-006`` where several processes share the step.
        """
        ...

    def gradients(self) -> "Gradients":
        """All gradients anew; the model is left without any."""
        ...


@dataclass(frozen=True, slots=True)
class Gradients:
    """What a combiner is given.

    Attributes:
        forget: One gradient for each trainable parameter.
        retain: Likewise.
        values: Value of each term over the whole step, by name.
        again: The step once more; None only where gradients are given by hand.
        beside: Name of each term beside the two -> its gradient. To look at: the step adds them to
            what the combiner gives.
    """

    forget: Sequence[Tensor]
    retain: Sequence[Tensor]
    values: Mapping[str, float]
    again: Again | None = None
    beside: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)


def weighted_sum(
    gradients: Gradients, state: Mapping[str, Any], params: GradientParams
) -> list[Tensor]:
    """``forget_weight * forget + retain_weight * retain``, parameter by parameter."""
    pairs = zip(gradients.forget, gradients.retain, strict=True)
    return [params.forget_weight * f + params.retain_weight * r for f, r in pairs]


SHARED = {"sum": weighted_sum}
