"""Clouds of points compared: how alike two sets of representations of the same things are.

Definition (X [N, d], Y [N, e]: the same N things in two models; Xc, Yc: column means taken out):
    cka           ||Xc' Yc||_F^2 / (||Xc' Xc||_F ||Yc' Yc||_F)
    debiased_cka  the same with unbiased estimates u(X, Y) of the squared norms:
                  u = ||Xc' Yc||_F^2 - N/(N-2) sum_i x_i y_i + sum x sum y / ((N-1)(N-2)),
                  where x_i, y_i are the squared lengths of the centred rows
    components    directions of the largest variance of Xc

Neither rotations nor a common scale of one of the two models change either value of CKA. The plain
one grows with d/N: two unrelated random clouds with d much larger than N have a value near 1.

Reference: Similarity of Neural Network Representations Revisited (2019); Feature Selection via
Dependence Maximization (2012) for the unbiased estimate.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from expunge.core.rng import generator

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST_ROWS = 4
"""Rows below which the unbiased estimate does not exist."""

FLAT = 1e-12
"""Share of the total variance below which a direction is rounding."""


def cka(x: FloatArray, y: FloatArray) -> float:
    """Linear centred kernel alignment.

    Args:
        x: [N, d].
        y: [N, e], the same things in the same order.

    Returns:
        A value in [0, 1]; NaN where all rows of one cloud are equal.

    Example:
        >>> cross = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> round(cka(cross, cross[:, :1]), 8)
        0.70710678
    """
    x, y = _centred(x), _centred(y)
    return _ratio(_squared_norm(x, y), _squared_norm(x, x), _squared_norm(y, y))


def debiased_cka(x: FloatArray, y: FloatArray) -> float:
    """Linear centred kernel alignment from unbiased estimates.

    Args:
        x: [N, d].
        y: [N, e], the same things in the same order.

    Returns:
        About 0 for unrelated clouds however few rows there are, 1 for equal ones; it may lie a
        little outside [0, 1]. NaN with fewer than `FEWEST_ROWS` rows, and where a cloud is so
        small beside its noise that its own estimate is not positive.
    """
    if len(x) < FEWEST_ROWS:
        return math.nan
    x, y = _centred(x), _centred(y)
    return _ratio(_unbiased(x, y), _unbiased(x, x), _unbiased(y, y))


def components(x: FloatArray, count: int) -> FloatArray:
    """The first principal directions, [k, d], unit length, at most ``count``.

    Directions without variance are left out. The sign of a direction means nothing.
    """
    _, scale, directions = np.linalg.svd(_centred(x), full_matrices=False)
    variance = scale**2
    found: FloatArray = directions[:count]
    return found[variance[:count] > FLAT * max(float(variance.sum()), np.finfo(float).tiny)]


def pca_similarity(x: FloatArray, y: FloatArray) -> float:
    """Absolute cosine between the first principal directions of [N, d] and [M, d].

    Returns:
        A value in [0, 1]; NaN where one of the clouds has no direction at all.
    """
    first, other = components(x, 1), components(y, 1)
    return float(abs(first[0] @ other[0])) if len(first) and len(other) else math.nan


def pca_shift(x: FloatArray, y: FloatArray, count: int = 2) -> float:
    """Distance of the means of [N, d] and [M, d], seen in the first directions of the former.

    Returns:
        A length, in the units of the representations; NaN where the former has no direction.
    """
    plane = components(x, count)
    return float(np.linalg.norm(plane @ (y.mean(0) - x.mean(0)))) if len(plane) else math.nan


def ridge_labels(seen: FloatArray, labels: IntArray, asked: FloatArray) -> IntArray:
    """A linear probe: least squares to one label each, with a little shrinkage.

    Args:
        seen: [N, d], what the probe learns from.
        labels: [N], 0 to C - 1.
        asked: [M, d].

    Returns:
        [M], the label with the largest value.
    """
    mean, spread = seen.mean(0), seen.std(0)
    scale = np.where(spread > 0, spread, 1.0)
    known, unknown = (seen - mean) / scale, (asked - mean) / scale
    targets = np.eye(int(labels.max()) + 1)[labels]
    offset = targets.mean(0)
    # In the space of rows, which is smaller than that of features wherever probes are used here.
    gram = known @ known.T + len(known) * np.eye(len(known))
    found: IntArray = (unknown @ known.T @ np.linalg.solve(gram, targets - offset) + offset).argmax(
        1
    )
    return found


def neighbour_labels(
    seen: FloatArray, labels: IntArray, asked: FloatArray, neighbours: int
) -> IntArray:
    """Labels [M] by the vote of the nearest rows, by cosine; the nearer side wins a tie.

    Args:
        seen: [N, d].
        labels: [N], 0 to C - 1.
        asked: [M, d].
        neighbours: Votes, fewer where there are fewer rows.
    """
    alike = _unit(asked) @ _unit(seen).T
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :neighbours]
    votes = np.zeros((len(asked), int(labels.max()) + 1))
    # A vote that counts a trifle more the nearer it is never outweighs a whole vote.
    weight = 1.0 + 1e-3 / (1.0 + np.arange(nearest.shape[1]))
    for rank in range(nearest.shape[1]):
        votes[np.arange(len(asked)), labels[nearest[:, rank]]] += weight[rank]
    found: IntArray = votes.argmax(1)
    return found


Probe = Callable[[FloatArray, IntArray, FloatArray], IntArray]
"""What is seen [N, d], its labels [N], what is asked [M, d] -> labels [M]."""


def cross_asked(
    states: Mapping[str, FloatArray],
    topics: Mapping[str, str],
    probe: Probe,
    *,
    folds: int,
    seed: int,
) -> dict[str, int]:
    """Ask a probe for the topic of each row after it has seen the other folds.

    Args:
        states: Row id -> [d].
        topics: Row id -> topic; rows without one, or the only one of theirs, are left out.
        probe: What learns.
        folds: Parts of the rows; each topic is dealt to them in turn.
        seed: Decides which row goes where.

    Returns:
        Row id -> 1 where its topic is found, else 0; nothing with fewer than two topics.
    """
    groups = _groups(states, topics)
    if len(groups) < 2:
        return {}
    dealt = _dealt(groups, folds, seed)
    names = {topic: number for number, topic in enumerate(groups)}
    rows = list(dealt)
    features = np.stack([states[row] for row in rows]).astype(np.float64)
    labels = np.array([names[topics[row]] for row in rows])
    fold = np.array([dealt[row] for row in rows])
    hits: dict[str, int] = {}
    for part in range(folds):
        asked = fold == part
        if asked.any():
            found = probe(features[~asked], labels[~asked], features[asked])
            right = found == labels[asked]
            places = np.flatnonzero(asked)
            hits |= {rows[at]: int(hit) for at, hit in zip(places, right, strict=True)}
    return hits


def _groups(rows: Iterable[str], topics: Mapping[str, str]) -> dict[str, list[str]]:
    """Topic -> its rows, in the order of their names; topics of one row are left out."""
    groups: dict[str, list[str]] = {}
    for row in sorted(rows):
        if topics.get(row):
            groups.setdefault(topics[row], []).append(row)
    return {topic: members for topic, members in sorted(groups.items()) if len(members) > 1}


def _dealt(groups: Mapping[str, Sequence[str]], folds: int, seed: int) -> dict[str, int]:
    """Row -> fold, each topic dealt out from a fold of its own."""
    dealt = {}
    for topic, members in groups.items():
        draw = generator(seed, "folds", topic)
        start = int(draw.integers(folds))
        for place, index in enumerate(draw.permutation(len(members))):
            dealt[members[index]] = (start + place) % folds
    return dealt


def _centred(x: FloatArray) -> FloatArray:
    x = np.asarray(x, dtype=np.float64)
    centred: FloatArray = x - x.mean(0, keepdims=True)
    return centred


def _unit(x: FloatArray) -> FloatArray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1.0)


def _squared_norm(x: FloatArray, y: FloatArray) -> float:
    """``||X' Y||_F^2``, by the smaller of the two products that give it."""
    if len(x) < min(x.shape[1], y.shape[1]):
        return float(np.vdot(x @ x.T, y @ y.T))
    return float(np.square(x.T @ y).sum())


def _unbiased(x: FloatArray, y: FloatArray) -> float:
    """N(N-3) times the unbiased estimate, from centred rows."""
    rows = len(x)
    lengths_x, lengths_y = np.square(x).sum(1), np.square(y).sum(1)
    return float(
        _squared_norm(x, y)
        - rows / (rows - 2) * (lengths_x @ lengths_y)
        + lengths_x.sum() * lengths_y.sum() / ((rows - 1) * (rows - 2))
    )


def _ratio(both: float, first: float, second: float) -> float:
    return both / math.sqrt(first * second) if first > 0 and second > 0 else math.nan
