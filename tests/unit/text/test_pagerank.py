"""Personalised PageRank against the linear system it solves, and at its edges."""

import numpy as np
import pytest
from scipy import sparse

from expunge.text.pagerank import personalised


def solved(adjacency: np.ndarray, restart: float, start: np.ndarray) -> np.ndarray:
    """The slow way: dead ends go home, then one dense system."""
    home = start / start.sum()
    out = adjacency.sum(1, keepdims=True)
    walk = np.where(out > 0, adjacency / np.where(out > 0, out, 1), home[None])
    size = len(start)
    return np.linalg.solve(np.eye(size) - (1 - restart) * walk.T, restart * home)


def test_two_nodes_in_closed_form() -> None:
    """r0 = a + (1 - a) r1, r1 = (1 - a) r0: r0 = 1 / (2 - a)."""
    found = personalised([[0, 1], [1, 0]], 0.15, [1, 0])
    np.testing.assert_allclose(found, [1 / 1.85, 0.85 / 1.85], atol=1e-11)


@pytest.mark.parametrize("restart", [0.05, 0.15, 0.9, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_solves_the_system_with_dead_ends_and_several_beginnings(
    restart: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    adjacency = draw.random((9, 9)) * (draw.random((9, 9)) < 0.3)
    adjacency[4] = 0
    start = np.array([2.0, 0, 1, 0, 0, 0, 0, 0, 0])
    found = personalised(sparse.csr_array(adjacency), restart, start)
    np.testing.assert_allclose(found, solved(adjacency, restart, start), atol=1e-10)
    assert found.sum() == pytest.approx(1)


def test_of_users_and_items_those_nearer_to_a_user_score_higher_and_strangers_zero() -> None:
    """Users 0 1 2, items 3 to 6: 0 has 3 and 4, 1 has 4 and 5, 2 has 6 alone."""
    graph = np.zeros((7, 7))
    for user, item in ((0, 3), (0, 4), (1, 4), (1, 5), (2, 6)):
        graph[user, item] = graph[item, user] = 1
    found = personalised(graph, 0.15, [1, 0, 0, 0, 0, 0, 0])
    assert found[4] > found[5] > found[6] == 0
    assert found[3] > found[5]


@pytest.mark.parametrize(
    ("adjacency", "restart", "start"),
    [([[0, 1], [1, 0]], 0.0, [1, 0]), ([[0, -1], [1, 0]], 0.1, [1, 0]), ([[0]], 0.1, [0])],
)
def test_what_is_no_walk_is_refused(adjacency, restart, start) -> None:
    with pytest.raises(ValueError, match=r"restart|weights"):
        personalised(adjacency, restart, start)
