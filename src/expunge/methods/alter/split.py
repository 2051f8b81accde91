"""The sub-domains of the forget rows, and the centres they gather around."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.rng import generator
from expunge.requests.rows import Row

RESTARTS = 8
"""Random starts of the clustering; the tightest result counts."""

SHRINKAGE = 0.1
"""Share of the mean variance that is added to every variance of a discriminant."""


def by_subject(rows: Sequence[Row]) -> list[int]:
    """The sub-domain of each row: one for each subject, in the order in which they come.

    Raises:
        ExpungeError: ``E-DATA-003`` when a row names none.
    """
    if missing := [row.id for row in rows if row.subject is None]:
        raise ExpungeError(
            "E-DATA-003",
            f"{len(missing)} forget rows have no subject (the first is {missing[0]}).",
            "a subject in every forget row, for --set split=subject.",
            "Add the column, or use --set split=hidden.",
        )
    order = list(dict.fromkeys(row.subject for row in rows))
    return [order.index(row.subject) for row in rows]


def by_likeness(points: Tensor, count: int, seed: int) -> list[int]:
    """The sub-domain of each row, by k-means.

    Args:
        points: [rows, d].
        count: Sub-domains wanted; there may be fewer different points.
        seed: Decides the random starts.

    Returns:
        Numbers from 0, in the order in which they come.
    """
    from scipy.cluster.vq import kmeans2

    data = points.double().cpu().numpy()
    count = min(count, len(np.unique(data, axis=0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cluster that runs empty: another start is better
        tried = [
            kmeans2(data, count, iter=50, minit="++", rng=generator(seed, "alter", "split", turn))
            for turn in range(RESTARTS)
        ]
    spread = [float(np.square(data - centres[labels]).sum()) for centres, labels in tried]
    found = tried[int(np.argmin(spread))][1].tolist()
    order = list(dict.fromkeys(found))
    return [order.index(label) for label in found]


class Discriminant:
    """The linear discriminant between groups, from points that come in parts.

    ``softmax(W x + b)`` is the probability of each group where all are normal with one common
    covariance.

    Args:
        groups: Number of groups; each must get a point.
        width: d.
        device: Where the points are.
    """

    def __init__(self, groups: int, width: int, device: torch.device) -> None:
        self._count = torch.zeros(groups, dtype=torch.float64, device=device)
        self._sum = torch.zeros(groups, width, dtype=torch.float64, device=device)
        self._square = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, points: Tensor, labels: Tensor) -> None:
        """Take more points.

        Args:
            points: [n, d].
            labels: [n], the group of each.
        """
        x = points.double()
        self._count.index_add_(0, labels, torch.ones_like(x[:, 0]))
        self._sum.index_add_(0, labels, x)
        self._square += x.T @ x

    def found(self) -> tuple[Tensor, Tensor]:
        """Weights [groups, d] and offsets [groups], float64."""
        total = self._count.sum()
        centres = self._sum / self._count[:, None]
        within = (self._square - centres.T @ self._sum) / total
        level = within.diagonal().mean().clamp(min=torch.finfo(within.dtype).tiny)
        within.diagonal().add_(SHRINKAGE * level)
        weights = torch.linalg.solve(within, centres.T).T
        offsets = (self._count / total).log() - (weights * centres).sum(1) / 2
        return weights, offsets
