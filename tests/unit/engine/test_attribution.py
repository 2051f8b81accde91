"""Attribution: exact for ridge regression, additive only nearly, and sketches keep products."""

import pytest
import torch
from torch import Tensor

from expunge.engine.attribution import Linearised, Sketch

RIDGE = 0.05


def world(n: int = 30, d: int = 12) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    features = torch.randn(n, d, generator=draw, dtype=torch.float64)
    wanted = features @ torch.randn(d, generator=draw, dtype=torch.float64)
    return features, wanted + 0.3 * torch.randn(n, generator=draw, dtype=torch.float64)


def refitted(features: Tensor, answers: Tensor, gone: list[int], penalty: float) -> Tensor:
    """Outputs on all rows of a ridge regression trained without some of them."""
    kept = [at for at in range(len(answers)) if at not in gone]
    x, y = features[kept], answers[kept]
    weights = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]).double(), x.T @ y)
    return features @ weights


def linear(features: Tensor, answers: Tensor) -> Linearised:
    return Linearised(features @ features.T, answers, RIDGE)


def test_without_one_row_it_is_the_regression_trained_anew() -> None:
    """The card's check, for one row: to 1e-8."""
    features, answers = world()
    made = linear(features, answers)
    whole = refitted(features, answers, [], made.penalty)
    for gone in (0, 7):
        expected = refitted(features, answers, [gone], made.penalty)
        torch.testing.assert_close(made.without([gone]), expected, rtol=0, atol=1e-8)
        alone = whole - made.influences()[:, gone]
        torch.testing.assert_close(alone, expected, rtol=0, atol=1e-8)


def test_of_three_rows_the_joint_removal_is_exact_and_the_sum_nearly() -> None:
    features, answers = world(200)
    made, gone = linear(features, answers), [1, 5, 11]
    whole = refitted(features, answers, [], made.penalty)
    expected = refitted(features, answers, gone, made.penalty)
    torch.testing.assert_close(made.without(gone), expected, rtol=0, atol=1e-8)
    summed = whole - made.influences()[:, gone].sum(1)
    error, change = (summed - expected).norm(), (whole - expected).norm()
    assert 1e-6 < error / change < 0.1


def test_rows_that_say_the_same_are_undercounted_by_a_sum() -> None:
    """Why joint removal is the default: each alone, the other one still says it."""
    features, answers = world()
    features[1], answers[1] = features[0], answers[0]
    made = linear(features, answers)
    whole = refitted(features, answers, [], made.penalty)
    expected = whole - refitted(features, answers, [0, 1], made.penalty)
    summed = made.influences()[:, [0, 1]].sum(1)
    assert summed[0].abs() < 0.95 * expected[0].abs()


def test_a_helpful_row_has_a_positive_influence_on_itself() -> None:
    """The sign: taking it out lowers what is said of it."""
    features = torch.eye(4, dtype=torch.float64)
    made = linear(features, torch.full((4,), 3.0, dtype=torch.float64))
    assert (made.influences().diagonal() > 2.8).all()
    assert made.without([0])[0] < 1e-9
    assert made.without([0])[1] > 2.8
    assert made.contributed([0])[0] > 2.8


def test_one_step_fades_where_an_answer_is_known_by_heart() -> None:
    features, answers = world()
    made = linear(features, answers)
    sure, unsure = (made.one_step(torch.full((30,), p, dtype=torch.float64)) for p in (0.99, 0.5))
    torch.testing.assert_close(sure * 50, unsure, rtol=1e-9, atol=1e-12)


def test_with_all_rows_gone_it_says_what_it_said_before() -> None:
    features, answers = world(5)
    assert linear(features, answers).without(range(5)).abs().max() == 0


@pytest.mark.parametrize("size", [64, 1024])
def test_a_sketch_keeps_inner_products_the_better_the_larger(size: int) -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(12, 5000, generator=draw)
    rows[1] = 0.8 * rows[0] + 0.6 * rows[1]
    sketch = Sketch(size, seed=1)
    made = torch.stack([sketch([row[:2000].reshape(40, 50), None, row[2000:]]) for row in rows])
    unit, short = (x / x.norm(dim=1, keepdim=True) for x in (rows.double(), made))
    error = (unit @ unit.T - short @ short.T).abs().max()
    assert error < 6 / size**0.5
    again = Sketch(size, seed=1)([rows[0][:2000].reshape(40, 50), None, rows[0][2000:]])
    assert torch.equal(again, made[0])
