"""Combiners: from the gradients of the terms to one gradient.

A method that names none gets the weighted sum of both terms in one backward pass. A combiner sees
whole, accumulated gradients, one tensor per trainable parameter and term, already divided by the
step's denominators and summed over processes. Under FSDP2 each process holds shards of them: sums
and scales are as ever, but an inner product or a norm must become whole (``full_tensor()``) before
it becomes a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from expunge.core.params import GradientParams


@dataclass(frozen=True, slots=True)
class Gradients:
    """What a combiner is given.

    Attributes:
        forget: One gradient for each trainable parameter.
        retain: Likewise.
        values: Value of each term over the whole step, by name.
    """

    forget: Sequence[Tensor]
    retain: Sequence[Tensor]
    values: Mapping[str, float]


def weighted_sum(
    gradients: Gradients, state: Mapping[str, Any], params: GradientParams
) -> list[Tensor]:
    """``forget_weight * forget + retain_weight * retain``, parameter by parameter."""
    pairs = zip(gradients.forget, gradients.retain, strict=True)
    return [params.forget_weight * f + params.retain_weight * r for f, r in pairs]


SHARED = {"sum": weighted_sum}
