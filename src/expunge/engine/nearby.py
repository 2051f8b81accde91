"""What a step would be like elsewhere: weights moved for a moment, and what that tells of curves.

For combiners that look around the point they stand at (`expunge.engine.slots.combine.Again`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from expunge.engine.projection import SMALLEST, Gradient, length


@contextmanager
def shifted(parameters: Sequence[nn.Parameter], along: Gradient, factor: float) -> Iterator[None]:
    """Weights at ``weights + factor * along``; then back from a copy, bit for bit.

    To subtract what was added would leave rounding behind, and in bfloat16 much of it.

    Args:
        parameters: What is moved.
        along: One tensor for each of them.
        factor: How many times ``along``.
    """
    kept = [parameter.detach().clone() for parameter in parameters]
    move(parameters, along, factor)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in zip(parameters, kept, strict=True):
                parameter.copy_(before)


@torch.no_grad()
def move(parameters: Sequence[nn.Parameter], along: Gradient, factor: float) -> None:
    """Add ``factor * along`` to the weights."""
    for parameter, direction in zip(parameters, along, strict=True):
        parameter.add_(direction, alpha=factor)


def hessian_product(
    parameters: Sequence[nn.Parameter],
    along: Gradient,
    gradient: Callable[[], Gradient],
    epsilon: float,
) -> list[Tensor]:
    """The derivative of a gradient along a direction, by a central difference.

    Args:
        parameters: Where the gradient is taken at, moved and put back.
        along: The direction v; its length counts, since the result is H v.
        gradient: Gives the gradient at the weights as they are.
        epsilon: How far to go on either side, Euclidean length over all weights.
    """
    size = length(along)
    if size < SMALLEST:
        return [torch.zeros_like(direction) for direction in along]
    with shifted(parameters, along, epsilon / size):
        ahead = gradient()
    with shifted(parameters, along, -epsilon / size):
        behind = gradient()
    return [(a - b) * (size / (2 * epsilon)) for a, b in zip(ahead, behind, strict=True)]


def derivative(value: Tensor, parameters: Sequence[nn.Parameter], *, graph: bool) -> list[Tensor]:
    """Gradient of a scalar, zero for what has no part in it.

    Args:
        value: The scalar.
        parameters: What it is derived by.
        graph: Whether the result can be differentiated as well.
    """
    if not value.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    found = torch.autograd.grad(value, list(parameters), create_graph=graph, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return [torch.zeros_like(p) if g is None else g for g, p in pairs]
