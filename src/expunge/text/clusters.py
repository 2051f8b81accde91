"""Groups of texts that resemble one another: k-means on their vectors, as many as part best.

Definition (points x_i, k-means with k centres for every k, a_i the mean distance of x_i to the
others of its group, b_i the smallest mean distance to those of another group):
    silhouette(k) = mean_i (b_i - a_i) / max(a_i, b_i),   0 for a point that is alone in its group
    k             = argmax_{2 <= k <= most} silhouette(k)

Reference: Silhouettes: a Graphical Aid to the Interpretation and Validation of Cluster Analysis
(1987).
"""

import warnings
from typing import TYPE_CHECKING, Any

from expunge.core.rng import generator

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float64]
    Labels = npt.NDArray[np.int64]

RESTARTS = 4
"""Random starts of k-means; the one with the smallest spread counts."""

LOOKED_AT = 2000
"""More points than this are not compared in pairs: as many are drawn."""


def clustered(points: "Vector", most: int, seed: int) -> "Labels":
    """The group of each point.

    Args:
        points: [n, d].
        most: Most groups.
        seed: Decides the random starts.

    Returns:
        [n], numbers from 0 in the order in which the groups come; all 0 where there are fewer than
        three different points, or only one group is wanted.
    """
    import numpy as np

    used = points[:, points.any(axis=0)]
    different = len(np.unique(used, axis=0)) if used.size else 1
    if different < 3 or most < 2:
        return np.zeros(len(points), dtype=np.int64)
    drawn = generator(seed, "clusters", "looked at").permutation(len(used))[:LOOKED_AT]
    away = _distances(used[drawn])
    found = [kmeans(used, count, seed) for count in range(2, min(most, different - 1) + 1)]
    best = max(found, key=lambda labels: silhouette(away, labels[drawn]))
    return best


def kmeans(points: "Vector", count: int, seed: int) -> "Labels":
    """The nearest of ``count`` centres for each point.

    Args:
        points: [n, d], with at least so many different ones.
        count: Groups wanted; fewer where one runs empty in every start.
        seed: Decides the random starts.
    """
    import numpy as np
    from scipy.cluster.vq import kmeans2

    tried = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a group that runs empty: another start is better
        for turn in range(RESTARTS):
            rng = generator(seed, "clusters", count, turn)
            centres, labels = kmeans2(points, count, iter=50, minit="++", rng=rng)
            tried.append((float(np.square(points - centres[labels]).sum()), turn, labels))
    labels = min(tried)[2]
    order = {label: at for at, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([order[label] for label in labels.tolist()], dtype=np.int64)


def silhouette(away: "Vector", labels: "Labels") -> float:
    """How well groups are parted, in [-1, 1].

    Args:
        away: [n, n], distances.
        labels: [n], the group of each point.
    """
    import numpy as np

    kinds, own = np.unique(labels, return_inverse=True)
    if len(kinds) < 2:
        return -1.0
    member: Any = np.eye(len(kinds))[own]
    sizes = member.sum(axis=0)
    sums = away @ member
    place = np.arange(len(labels))
    inside = sums[place, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[place, own] = np.inf
    other = means.min(axis=1)
    scale = np.maximum(np.maximum(inside, other), 1e-300)
    return float(np.where(sizes[own] > 1, (other - inside) / scale, 0.0).mean())


def _distances(points: "Vector") -> "Vector":
    import numpy as np

    squares = np.square(points).sum(axis=1)
    found = squares[:, None] + squares - 2 * points @ points.T
    np.fill_diagonal(found, 0.0)
    return np.asarray(np.sqrt(found.clip(0)), dtype=np.float64)
