"""Scores of what is like known texts: textbook values, conditions of the optimum, gate values."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from expunge.lm.ood import Known, Mixture, clamped, hardened, separated, shrinkage

POINTS = torch.tensor(
    [
        [1.13, -0.26, 0.32, 3.1],
        [0.46, 0.72, 0.65, 3.95],
        [0.3, -2.53, -0.31, 3.04],
        [-1.33, -0.44, -0.62, 2.27],
        [0.46, -0.63, 0.21, 4.04],
        [0.87, 2.73, -0.33, 3.35],
    ],
    dtype=torch.float64,
)
"""Shrinkage and distances of these are those that scikit-learn 1.9.1 gives."""

CLOUD = np.array(
    [
        [3.9, 2.09, 3.26],
        [2.08, 1.54, 4.22],
        [1.99, 1.79, 3.84],
        [3.54, 2.21, 4.36],
        [2.35, 1.87, 4.78],
        [4.49, 0.74, 5.51],
        [4.35, 2.78, 4.26],
        [2.69, 3.46, 5.96],
        [4.8, 3.32, 4.36],
        [1.79, 2.0, 4.66],
        [1.71, 2.4, 4.43],
        [3.7, 0.82, 3.34],
    ]
)
"""Its separator for nu=.3 is that of scikit-learn, divided by nu n."""


def known(points: torch.Tensor) -> Known:
    return Known.of(points[:, None])


def test_shrinkage_and_distances_are_the_textbook_s() -> None:
    assert shrinkage(POINTS) == pytest.approx(0.5647271422734805)
    found = known(POINTS).distances(
        torch.cat([POINTS[:3], torch.tensor([[1.0, 2, 3, 4]])])[:, None]
    )
    expected = [1.19926895, 1.51284599, 3.97864956, 17.422438]
    assert found[:, 0].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_fewer_points_than_numbers_have_an_inverse_all_the_same(count: int) -> None:
    """An empirical covariance of n < d points is singular."""
    draw = torch.Generator().manual_seed(count)
    points = torch.randn(count, 12, generator=draw, dtype=torch.float64) + 0.2
    found = known(points).distances(torch.randn(5, 1, 12, generator=draw))
    assert torch.isfinite(found).all()
    a = max(1e-3, shrinkage(points))
    x = points - points.mean(0)
    s = x.T @ x / count
    c = (1 - a) * s + a * s.trace() / 12 * torch.eye(12)
    other = torch.randn(1, 12, generator=draw, dtype=torch.float64)
    away = other - points.mean(0)
    slow = float(away @ torch.linalg.inv(c) @ away.T)
    assert float(known(points).distances(other[:, None])) == pytest.approx(slow, rel=1e-3)


def test_points_that_do_not_differ_leave_room_for_nothing_else() -> None:
    same = torch.ones(3, 4)
    found = known(same)
    assert float(found.distances(same[:1, None])) == pytest.approx(0, abs=1e-6)
    assert float(found.distances(1.1 * same[:1, None])) > 100
    assert torch.isfinite(found.distances(torch.zeros(1, 1, 4))).all()


def test_the_largest_cosine_counts_layer_by_layer() -> None:
    vectors = torch.tensor([[[1.0, 0], [0, 2.0]], [[0, 3.0], [1.0, 1.0]]])
    asked = torch.tensor([[[2.0, 0], [1.0, 0]], [[-1.0, 0], [0.0, 0.0]]])
    found = Known.of(vectors).cosines(asked)
    assert found[0].tolist() == pytest.approx([1, 0.5**0.5])
    assert found[1].tolist() == pytest.approx([0, 0])


def test_what_is_known_goes_through_plain_tensors() -> None:
    one = Known.of(torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)))
    again = Known.read(one.tensors(), torch.device("cpu"))
    asked = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one.distances(asked), again.distances(asked))
    assert torch.equal(one.cosines(asked), again.cosines(asked))


# -------------------------------------------------------------------------------- separator


def conditions(points: np.ndarray, nu: float) -> None:
    """Karush, Kuhn and Tucker's, which only the optimum meets."""
    found = separated(points, nu)
    most, scale = 1 / (nu * len(points)), float(np.abs(points).max()) ** 2
    assert found.shares.sum() == pytest.approx(1)
    assert found.shares.min() >= -1e-12
    assert found.shares.max() <= most + 1e-12
    np.testing.assert_allclose(found.weight, found.shares @ points, rtol=1e-6, atol=1e-9)
    values, near = points @ found.weight, 1e-6 * scale
    assert (values[found.shares > 1e-9] <= found.offset + near).all()
    assert (values[found.shares < most - 1e-9] >= found.offset - near).all()


@pytest.mark.parametrize("nu", [0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_separator_meets_the_conditions_of_the_optimum(nu: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    for n, k in ((1, 3), (2, 12), (7, 2), (40, 12), (300, 24)):
        conditions(draw.normal(size=(n, k)) + 1.5, nu)
    conditions(1000 * draw.normal(size=(20, 12)) - 9000, nu)


def test_it_is_the_textbook_s() -> None:
    found = separated(CLOUD, 0.3)
    assert found.weight.tolist() == pytest.approx([2.44333333, 1.55277778, 3.905], rel=1e-6)
    assert found.offset == pytest.approx(25.20391644, rel=1e-6)


def test_it_is_what_a_general_solver_finds() -> None:
    points = np.random.default_rng(5).normal(size=(15, 4)) + 2
    gram, most = points @ points.T, 1 / (0.2 * 15)
    slow = minimize(
        lambda a: a @ gram @ a / 2, np.full(15, 1 / 15), jac=lambda a: gram @ a, method="SLSQP",
        bounds=[(0, most)] * 15, constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    np.testing.assert_allclose(separated(points, 0.2).weight, slow.x @ points, rtol=1e-4)


def test_an_origin_among_the_points_cannot_be_separated() -> None:
    found = separated(np.array([[1.0, 0], [-1.0, 0], [0, 1.0], [0, -1.0]]), 0.5)
    assert found.weight.tolist() == pytest.approx([0, 0], abs=1e-9)


def test_the_share_left_behind_is_nu() -> None:
    points = np.random.default_rng(1).normal(size=(200, 5)) + 3
    found = separated(points, 0.1)
    behind = (points @ found.weight < found.offset - 1e-9).mean()
    assert 0.06 < behind <= 0.1


# ------------------------------------------------------------------------------------- gate


def test_the_card_s_gate() -> None:
    gate = Mixture(0.0, 0.0, 1.0)
    score = torch.tensor([0.0, 3.0, -3.0])
    assert gate.typical(score).tolist() == pytest.approx([1, 0.0027, 0.0027], abs=1e-5)
    weight = gate.weight(score)
    assert weight.tolist() == pytest.approx([0.99966, 0.1221, 0.1221], abs=5e-5)
    assert hardened(weight).tolist() == pytest.approx([1.2, 0, 0])
    assert clamped(weight, 0.3, 0.9).tolist() == pytest.approx([1, 0, 0])


def test_the_mixture_is_half_of_each() -> None:
    gate = Mixture(4.0, 0.0, 1.0)
    assert gate.centre == 2.0
    assert gate.below(torch.tensor([2.0])).item() == pytest.approx(0.5)
    middle = gate.typical(torch.tensor([2.0, 4.0, 0.0]))
    assert middle.tolist() == pytest.approx([1, 0.5, 0.5], abs=1e-4)
    assert gate.weight(torch.tensor([9.0])).item() == pytest.approx(0.119203, abs=1e-4)


def test_the_released_table_has_a_dead_zone_and_the_clamp_has_none() -> None:
    weight = torch.tensor([0.12, 0.3, 0.31, 0.4, 0.41, 0.7, 0.9, 0.91])
    hard = [0, 0, 0.31, 0.4, 0, 0, 0, 1.2]
    soft = [0, 0, 0.31, 0.4, 0.41, 0.7, 0.9, 1]
    assert hardened(weight).tolist() == pytest.approx(hard)
    assert clamped(weight, 0.3, 0.9).tolist() == pytest.approx(soft)
