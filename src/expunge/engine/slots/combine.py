"""Combiners: from the gradients of the terms to one gradient.

A method that names none gets the weighted sum of both terms in one backward pass. A combiner sees
whole, accumulated gradients: ``{"forget": [tensor, ...], "retain": [...]}``, one tensor per
trainable parameter, already divided by the step's denominators and summed over processes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from expunge.core.params import GradientParams

Gradients = Mapping[str, Sequence[Tensor]]


def weighted_sum(
    gradients: Gradients, state: Mapping[str, Any], params: GradientParams
) -> list[Tensor]:
    """``forget_weight * forget + retain_weight * retain``, parameter by parameter."""
    pairs = zip(gradients["forget"], gradients["retain"], strict=True)
    return [params.forget_weight * f + params.retain_weight * r for f, r in pairs]


SHARED = {"sum": weighted_sum}
