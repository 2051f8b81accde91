"""Projected gradient descent on a tensor whose rows may not be longer than a radius."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Slope = Callable[[Tensor], tuple[float, Tensor]]
"""A loss and its gradient at a place."""


def projected(rows: Tensor, radius: float) -> Tensor:
    """Each row [d] of [P, d] shortened to the radius, where it is longer."""
    norm = rows.norm(dim=-1, keepdim=True)
    return torch.where(norm > radius, rows * (radius / norm.clamp_min(1e-30)), rows)


def descend(slope: Slope, start: Tensor, *, radius: float, steps: int, step: float) -> Tensor:
    """Walk downhill from ``start``, every row by the same length a step, inside the ball.

    Args:
        slope: What is made small.
        start: [P, d].
        radius: Longest row.
        steps: Number of steps.
        step: Length of a step of one row.

    Returns:
        The place with the smallest loss of all that were seen, the start included.
    """
    here = start
    least, gradient = slope(here)
    best = here
    for _ in range(steps):
        unit = gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        here = projected(here - step * unit, radius)
        loss, gradient = slope(here)
        if loss < least:
            least, best = loss, here
    return best


def least_radius(
    reaches: Callable[[float], bool], grid: Sequence[float], halvings: int
) -> float | None:
    """The smallest radius that is enough.

    Args:
        reaches: Whether a radius is enough.
        grid: Radii to try, smallest first.
        halvings: Times the gap below the first one that is enough is halved.

    Returns:
        That radius, 0 where none is needed, or None where no radius of the grid is enough.
    """
    if reaches(0.0):
        return 0.0
    low = 0.0
    for radius in sorted(grid):
        if reaches(radius):
            high = radius
            break
        low = radius
    else:
        return None
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high
