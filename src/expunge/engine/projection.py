"""Inner products of gradients, and gradients without their part along another.

A gradient is one tensor for each parameter. Products are formed in float64 over all of them; of
shards (FSDP2) they are summed over the processes before they become numbers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

PIECE = 1 << 24
"""Elements of a tensor that are in float64 at a time."""

SMALLEST = 1e-12
"""Length below which a gradient has no direction."""

Gradient = Sequence[Tensor]


def inner(one: Gradient, other: Gradient) -> float:
    """The inner product of two gradients of the same parameters."""
    return sum(_product(a, b) for a, b in zip(one, other, strict=True))


def length(gradient: Gradient) -> float:
    """Euclidean length over all parameters."""
    return float(inner(gradient, gradient) ** 0.5)


def coefficient(gradient: Gradient, along: Gradient) -> float:
    """``<gradient, along> / <along, along>``; 0 where ``along`` is shorter than `SMALLEST`."""
    square = inner(along, along)
    return inner(gradient, along) / square if square >= SMALLEST**2 else 0.0


def grad_cos(one: Gradient, other: Gradient) -> float:
    """Cosine of the angle between two gradients; 0 where one is shorter than `SMALLEST`."""
    lengths = length(one), length(other)
    return inner(one, other) / (lengths[0] * lengths[1]) if min(lengths) >= SMALLEST else 0.0


def cosine(one: Gradient, other: Gradient) -> Tensor:
    """`grad_cos` as a scalar with its graph, in the precision of the gradients."""
    pairs = [(one, other), (one, one), (other, other)]
    products = [torch.stack([(a * b).sum() for a, b in zip(*p, strict=True)]).sum() for p in pairs]
    across, *squares = products
    if min(float(square.detach()) for square in squares) < SMALLEST**2:
        return torch.zeros_like(across)
    return across / (squares[0].sqrt() * squares[1].sqrt())


def cosine_slopes(one: Gradient, other: Gradient) -> tuple[list[Tensor], list[Tensor]]:
    """Derivative of `grad_cos` in each of both gradients; 0 where one has no direction."""
    lengths, cosine = (length(one), length(other)), grad_cos(one, other)
    if min(lengths) < SMALLEST:
        return [torch.zeros_like(a) for a in one], [torch.zeros_like(b) for b in other]
    first, second = lengths
    pairs = list(zip(one, other, strict=True))
    return (
        [(b / second - cosine * a / first) / first for a, b in pairs],
        [(a / first - cosine * b / second) / second for a, b in pairs],
    )


def project_out(gradient: Gradient, along: Gradient) -> list[Tensor]:
    """``gradient`` without its part along another gradient."""
    share = coefficient(gradient, along)
    return [g - share * a for g, a in zip(gradient, along, strict=True)]


@torch.no_grad()
def _product(a: Tensor, b: Tensor) -> float:
    if isinstance(a, DTensor):
        whole: Tensor = (a.double() * b.double()).sum().full_tensor()  # type: ignore[attr-defined]
        return float(whole)
    pieces = zip(*(torch.split(x.reshape(-1), PIECE) for x in (a, b)), strict=True)
    return sum(float(x.double() @ y.double()) for x, y in pieces)
