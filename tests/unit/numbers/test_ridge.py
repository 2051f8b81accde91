"""Learning in stages: the closed form, what ascent does to a difference, and what descent does."""

import numpy as np
import pytest

from expunge.numbers.ridge import (
    Stage,
    apart,
    ascended,
    descended,
    distance,
    learned,
    least_distance,
)

A = Stage(np.array([[1.0, 0.0]]), np.array([1.0]))
B = Stage(np.array([[1.0, 1.0]]), np.array([0.0]))
ETA = 0.1


def orders():
    return learned([A, B], 1.0), learned([B, A], 1.0)


def drawn(seed):
    rng = np.random.default_rng(seed)
    stages = [Stage(rng.normal(size=(4, 6)), rng.normal(size=4)) for _ in range(3)]
    return rng, stages


def test_two_orders_of_the_same_stages_are_two_models():
    one, other = orders()
    assert one == pytest.approx([1 / 3, -1 / 6])
    assert other == pytest.approx([1 / 2, 0])
    assert one - other == pytest.approx([-1 / 6, -1 / 6])


def test_five_steps_of_ascent_by_hand():
    one, other = (ascended(theta, A, ETA, 5) for theta in orders())
    assert one == pytest.approx([-0.65888, -1 / 6])
    assert other == pytest.approx([-0.24416, 0])
    assert one - other == pytest.approx([-(1.2**5) / 6, -1 / 6])
    assert distance(one, other, np.eye(2)) == pytest.approx(0.0998852, abs=1e-7)


def test_a_stage_by_hand_that_is_not_on_the_card():
    """Two rows [1], targets 1 and 3, mu 2, from 0: 4 / (2 + 2); again: (4 + 2) / 4."""
    stage = Stage(np.array([[1.0], [1.0]]), np.array([1.0, 3.0]))
    assert learned([stage], 2.0) == pytest.approx([1.0])
    assert learned([stage, stage], 2.0) == pytest.approx([1.5])


@pytest.mark.parametrize("seed", range(5))
def test_the_difference_grows_inside_the_span_by_a_power_and_stays_outside(seed):
    _, (a, b, forget) = drawn(seed)
    one, other = learned([a, b, forget], 0.5), learned([forget, b, a], 0.5)
    after = ascended(one, forget, 0.01, 40) - ascended(other, forget, 0.01, 40)
    assert after == pytest.approx(apart(one - other, forget, 0.01, 40))
    outside = np.eye(6) - np.linalg.pinv(forget.x) @ forget.x
    assert outside @ after == pytest.approx(outside @ (one - other))


@pytest.mark.parametrize("seed", range(5))
def test_the_distance_stays_above_its_bound(seed):
    rng, (a, b, forget) = drawn(seed)
    x = rng.normal(size=(20, 6))
    one, other = learned([a, b], 0.5), learned([b, a], 0.5)
    for steps in (20, 50, 100):
        found = distance(*(ascended(theta, forget, 0.02, steps) for theta in (one, other)), x)
        bound = least_distance(one - other, forget, x, 0.02, steps)
        assert 0 < bound <= found * (1 + 1e-9)


def test_the_bound_by_hand_and_its_zero():
    """sigma 1, |P D_0|^2 1/36, m 2, rho .2: (1/36) / 8 * 1.2^10."""
    one, other = orders()
    expected = 1 / 36 / 8 * 1.2**10
    assert least_distance(one - other, A, np.eye(2), ETA, 5) == pytest.approx(expected)
    assert least_distance(np.array([0.0, 1.0]), A, np.eye(2), ETA, 5) == 0.0


def test_descent_on_a_strictly_convex_sum_forgets_the_order():
    keep = Stage(B.x, B.y)
    ends = [descended(theta, keep, A, mu=3.0, eta=0.05, steps=500) for theta in orders()]
    assert ends[0] == pytest.approx(ends[1], abs=1e-12)
    assert distance(*ends, np.eye(2)) < 1e-20
    assert distance(*(ascended(theta, A, ETA, 500) for theta in orders()), np.eye(2)) > 1.0
