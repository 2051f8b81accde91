"""Personalised PageRank: how often a walk that keeps going home comes by each node. No torch.

    r = restart * s + (1 - restart) * W^T r

s is where walks begin, W the adjacency with rows that sum to 1; a walk that cannot go on goes home.

Reference: Topic-Sensitive PageRank, 2002; the personalised form of The PageRank Citation Ranking,
1998.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

TOLERANCE = 1e-12
"""Change of all scores together at which the walk is over."""


def personalised(adjacency: Any, restart: float, start: ArrayLike) -> NDArray[np.float64]:
    """The stationary scores of walks from some nodes.

    Args:
        adjacency: [N, N] sparse or dense, weight of the way from row to column, at least 0. For an
            undirected graph it is symmetric.
        restart: Probability of going home at each step, in (0, 1].
        start: [N], how often walks begin at each node; some above 0.

    Returns:
        [N], summing to 1; exactly 0 at nodes that no walk reaches.

    Raises:
        ValueError: For a restart outside (0, 1], negative weights, or walks that begin nowhere.
    """
    ways = sparse.csr_array(adjacency, dtype=np.float64)
    home = np.asarray(start, dtype=np.float64)
    if not 0 < restart <= 1:
        raise ValueError(f"a restart of {restart} is outside (0, 1]")
    if (ways.data < 0).any() or (home < 0).any() or not home.sum() > 0:
        raise ValueError("weights are at least 0, and some walk begins somewhere")
    home = home / home.sum()
    out = np.asarray(ways.sum(axis=1)).ravel()
    inverse = np.divide(1.0, out, out=np.zeros_like(out), where=out > 0)
    onward = sparse.csr_array((sparse.diags_array(inverse) @ ways).T)
    scores: NDArray[np.float64] = home
    for _ in range(_steps(restart)):
        lost = scores[out == 0].sum()
        moved = restart * home + (1 - restart) * (onward @ scores + lost * home)
        change = np.abs(moved - scores).sum()
        scores = moved
        if change < TOLERANCE:
            break
    return scores


def _steps(restart: float) -> int:
    """Steps after which what is still on its way is below the tolerance."""
    return 2 if restart == 1 else int(np.ceil(np.log(TOLERANCE) / np.log1p(-restart))) + 2
