"""The strength of the corruption, found by asking what it does: no gradient is taken."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Vector = npt.NDArray[np.float64]

LEAST = 1e-8
"""No strength that is tried is below."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One step of zeroth-order descent.

    Attributes:
        e: How far to both sides the loss is asked.
        eta: What the slope is multiplied by.
        least: No strength is smaller.
    """

    e: float
    eta: float
    least: float

    def sides(self, s: "Vector", u: "Vector") -> "tuple[Vector, Vector]":
        """Where the loss is asked: ``s + e u`` and ``max(s - e u, 1e-8)``."""
        return s + self.e * u, np.maximum(s - self.e * u, LEAST)

    def step(self, s: "Vector", u: "Vector", ahead: float, behind: float) -> "Vector":
        """``max(s - eta g, least)`` with ``g = (S(s + e u) - S(s - e u)) / 2e * u``."""
        slope = (ahead - behind) / (2 * self.e)
        return np.maximum(s - self.eta * slope * u, self.least)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What tuning came to.

    Attributes:
        sigma: [1] or [n].
        known: The metric there.
        is_reached: Whether it is as low as that of the surrogate, or near.
    """

    sigma: "Vector"
    known: float
    is_reached: bool


def tuned(
    known: "Callable[[Vector], float]",
    surrogate: float,
    *,
    start: float,
    least: float,
    eta: float,
    steps: int,
    slack: float,
    size: int = 1,
    rng: np.random.Generator,
) -> Found:
    """Descend ``S(sigma) = |known(sigma) - surrogate|``.

    Args:
        known: The metric of the corrupted model.
        surrogate: That of a model which never knew.
        start: First strength, s_0.
        least: Smallest strength.
        eta: Step size.
        steps: Most steps.
        slack: Stops where the metric is no further than this above the surrogate's.
        size: 1 for one number, n for one for each dimension.
        rng: Draws the directions of more than one.

    Returns:
        The first strength that is strong enough; else the one of all that were tried with the
        smallest loss. Where the slope is 0 on both sides the strength is doubled instead.
    """
    rule = Rule(0.999 * start, eta, least)
    s, best = np.full(size, start), Found(np.full(size, start), np.inf, False)
    for _ in range(steps):
        u = np.ones(1) if size == 1 else _unit(rng, size)
        losses = []
        for side in rule.sides(s, u):
            one = known(side)
            if one <= surrogate + slack:
                return Found(side, one, True)
            losses.append(one - surrogate)
            if one < best.known:
                best = Found(side, one, False)
        moved = rule.step(s, u, *losses)
        s = 2 * s if np.array_equal(moved, s) else moved
    last = known(s)
    if last < best.known:
        best = Found(s, last, last <= surrogate + slack)
    return best


def _unit(rng: np.random.Generator, size: int) -> "Vector":
    drawn: Vector = rng.standard_normal(size)
    return drawn / np.linalg.norm(drawn)
