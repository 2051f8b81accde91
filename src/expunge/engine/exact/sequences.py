"""Orders in which slices are trained on, so that many deletions are survived.

A sequence is a permutation of the slices. A deletion in the slice at position j costs everything
from j on; a sequence is dead when its first slice is hit. Which orders are best depends on where
deletions are expected:

    cyclic     equal chances. B <= L: B rotations of one permutation, so that first slices differ
               and every position is as diverse as can be. B > L: all rotations, and behind each
               first slice the same again with what is left (a tree), B shared out evenly.
    matching   known chances p: one sequence for each first slice; at every position the next
               slices are assigned by the matching of largest total score,
               score(prefix) = sum_n n (1 - sum_{i <= n} p_i)^t,   t = 100
    sampling   known chances p: slices drawn one after another without replacement, weights 1 - p
"""

from collections.abc import Sequence
from itertools import accumulate
from math import factorial

import numpy as np
from scipy.optimize import linear_sum_assignment

from expunge.core.rng import generator

Order = tuple[int, ...]

EXPONENT = 100
"""t: how much a score prefers slices that are hardly ever hit."""

TRIES = 1000
"""Draws after which sampling takes what it has: nearly all chance lies on fewer orders."""


def cyclic(slices: Sequence[int], count: int) -> list[Order]:
    """Balanced sequences for slices that are equally likely to be hit.

    Args:
        slices: One permutation of them; the others are made from it.
        count: How many sequences (B), at most as many as there are permutations.

    Raises:
        ValueError: When more are asked for.
    """
    if not 1 <= count <= factorial(len(slices)):
        raise ValueError(f"{count} different orders of {len(slices)} slices")
    if count <= len(slices):
        return [_rotated(slices, turn) for turn in range(count)]
    share, left = divmod(count, len(slices))
    made = []
    for turn in range(len(slices)):
        first, *rest = _rotated(slices, turn)
        made += [(first, *tail) for tail in cyclic(rest, share + (turn < left))]
    return made


def matching(chances: Sequence[float], exponent: int = EXPONENT) -> list[Order]:
    """One sequence for each slice as its first, by iterated bipartite matching.

    Args:
        chances: For each slice how likely the next deletion hits it; their sum is at most 1.
        exponent: t.
    """
    count = len(chances)
    made: list[Order] = [(first,) for first in range(count)]
    for _ in range(count - 1):
        gain = np.full((count, count), -np.inf)
        for row, order in enumerate(made):
            for slice in set(range(count)) - set(order):
                gain[row, slice] = score([chances[i] for i in (*order, slice)], exponent)
        _, chosen = linear_sum_assignment(gain, maximize=True)
        made = [(*order, int(slice)) for order, slice in zip(made, chosen, strict=True)]
    return made


def sampling(chances: Sequence[float], count: int, seed: int) -> list[Order]:
    """Different sequences, each drawn slice by slice without replacement, weights ``1 - p``.

    Args:
        chances: For each slice how likely the next deletion hits it.
        count: How many; fewer come back where so many different ones are hardly ever drawn.
        seed: Decides the draws.
    """
    draw = generator(seed, "sequences")
    weights = np.maximum(1 - np.asarray(chances, dtype=float), np.finfo(float).tiny)
    found: dict[Order, None] = {}
    for _ in range(TRIES * count):
        drawn = draw.choice(len(weights), len(weights), replace=False, p=weights / weights.sum())
        found.setdefault(tuple(int(slice) for slice in drawn))
        if len(found) == count:
            break
    return list(found)


def score(chances: Sequence[float], exponent: int = EXPONENT) -> float:
    """How good it is to train on slices in this order.

    Args:
        chances: Of the slices of a prefix, in order.
        exponent: t.

    Example:
        >>> score([0.5, 0.25], exponent=1)
        1.0
    """
    sums = accumulate(chances)
    return float(sum(n * (1 - total) ** exponent for n, total in enumerate(sums, 1)))


def _rotated(slices: Sequence[int], turn: int) -> Order:
    return (*slices[turn:], *slices[:turn])
