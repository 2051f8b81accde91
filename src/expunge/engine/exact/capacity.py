"""How many deletions are left, and what one costs.

A *cell* is a slice of a shard. An ensemble is exhausted when certain cells have all been hit, K of
N. If every deletion hits a cell that is drawn anew,

    E[deletions] = N H_K,   H_K = 1 + 1/2 + ... + 1/K        equally likely cells
                 = integral_0^inf ( 1 - prod_k (1 - exp(-p_k t)) ) dt     cell k with chance p_k

For SISA the cells are the first slices of its shards, K = m: m L H_m. For B sequences a shard is
dead when the first slices of all of them are hit, so K = m min(B, L): m L H_{m min(B, L)}, exact
for B <= L, where first slices all differ. In the worst case the K cells are hit one after another.

Costs are counted in rows trained on, each as often as it is passed (row-epochs).
"""

from collections.abc import Sequence
from itertools import pairwise
from math import exp, inf, prod

import numpy as np
from scipy.integrate import quad

from expunge.core.rng import generator
from expunge.engine.exact.sequences import Order

LONG = 60.0
"""Mean waiting times of the rarest cell after which a cell is hit for certain."""


def harmonic(count: int) -> float:
    """``1 + 1/2 + ... + 1/count``.

    Example:
        >>> harmonic(2)
        1.5
    """
    return sum(1 / n for n in range(1, count + 1))


def expected_deletions(shards: int, slices: int, sequences: int = 1) -> float:
    """Deletions until a new ensemble is exhausted, on average, cells being equally likely.

    Args:
        shards: m.
        slices: L.
        sequences: B; 1 is SISA.

    Example:
        >>> round(expected_deletions(5, 6), 1), expected_deletions(1, 4)
        (68.5, 4.0)
    """
    return shards * slices * harmonic(shards * min(sequences, slices))


def expected_hits(chances: Sequence[float]) -> float:
    """Deletions until every one of some cells was hit, on average.

    Args:
        chances: For each cell how likely a deletion hits it; their sum is at most 1.

    Returns:
        Infinity where a cell is never hit.
    """
    if not chances:
        return 0.0
    if min(chances) <= 0:
        return inf

    def open_yet(t: float) -> float:
        return 1 - prod(1 - exp(-chance * t) for chance in chances)

    edges = np.concatenate([[0.0], np.geomspace(1, LONG / min(chances), 40)])
    return float(sum(quad(open_yet, start, end)[0] for start, end in pairwise(edges)))


def simulated_deletions(
    shards: int, orders: Sequence[Order], *, runs: int, seed: int = 0
) -> list[int]:
    """Deletions until exhaustion, played through: cells drawn anew, sequences cut where hit.

    Args:
        shards: m.
        orders: The sequences of each shard.
        runs: How often to play.
        seed: Decides the draws.
    """
    draw = generator(seed, "deletions")
    slices = len(orders[0])
    places = np.argsort(np.asarray(orders), axis=1)  # [B, L], where each slice stands
    found = []
    for _ in range(runs):
        kept = np.full((shards, len(orders)), slices)
        alive, deletions = shards, 0
        while alive:
            shard, slice = divmod(int(draw.integers(shards * slices)), slices)
            was_alive = bool(kept[shard].any())
            kept[shard] = np.minimum(kept[shard], places[:, slice])
            alive -= was_alive and not kept[shard].any()
            deletions += 1
        found.append(deletions)
    return found


def stage_rows(slices: Sequence[int], order: Order) -> list[int]:
    """How many rows each stage of a sequence trains on: its slice and all before it.

    Args:
        slices: Rows of each slice.
        order: The sequence.
    """
    return [int(total) for total in np.cumsum([slices[slice] for slice in order])]


def row_epochs(rows: Sequence[int], epochs: int, first: int = 0) -> int:
    """What it costs to train the stages of a sequence from some stage on.

    Args:
        rows: Rows of each stage.
        epochs: Passes of a stage.
        first: The first one trained.
    """
    return epochs * sum(rows[first:])
