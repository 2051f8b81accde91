"""Path spread: orders against seeds."""

import pytest

from expunge.core.measuring import measured
from expunge.testing.metrics import measure

RUNS = {
    "AB/0": 0.90, "AB/1": 0.80, "AB/2": 0.85,
    "BA/0": 0.50, "BA/1": 0.52, "BA/2": 0.48,
    "CA/0": 0.70, "CA/1": 0.70, "CA/2": 0.70,
}  # fmt: skip
ORDER = {run: run[:2] for run in RUNS}


def spread(utility=RUNS, order=ORDER):
    return measure("path-spread", {"utility": utility, "order": order})


def test_the_spread_is_over_means_of_orders_and_not_over_runs():
    value = spread()
    assert value.mean == pytest.approx(0.85 - 0.50)
    assert value.parts["seed_spread"] == pytest.approx((0.10 + 0.04 + 0) / 3)
    assert value.parts["ratio"] == pytest.approx(0.35 / (0.14 / 3))
    assert value.parts["order:CA"] == pytest.approx(0.7)
    assert value.note == ""


def test_orders_that_make_no_difference_have_no_spread():
    """Seeds that differ must not be taken for orders that do."""
    value = spread({run: {"0": 0.4, "1": 0.6, "2": 0.5}[run[-1]] for run in RUNS})
    assert value.mean == pytest.approx(0)
    assert value.parts["ratio"] == pytest.approx(0)


def test_equal_seeds_give_no_ratio_and_no_division_by_nothing():
    value = spread({run: 0.9 if run.startswith("AB") else 0.5 for run in RUNS})
    assert value.mean == pytest.approx(0.4)
    assert "ratio" not in value.parts


def test_runs_are_matched_by_name():
    turned = spread(RUNS, dict(reversed(ORDER.items())))
    assert turned.mean == pytest.approx(spread().mean)
    assert spread({k: v for k, v in RUNS.items() if k != "AB/0"}).mean == pytest.approx(0.325)


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        (["AB/0", "AB/1", "AB/2"], "two of them"),
        (["AB/0", "AB/1", "BA/0"], "two runs of every order"),
        ([], "there is 0"),
    ],
)
def test_too_few_runs_are_said_and_not_guessed(runs, why):
    value = spread({run: RUNS[run] for run in runs})
    assert value.mean is None
    assert why in value.note


def test_two_seeds_are_measured_and_called_few():
    value = spread({run: v for run, v in RUNS.items() if run[-1] != "2"})
    assert value.mean is not None
    assert "3 are wanted" in value.note


def test_a_run_that_broke_makes_it_unmeasurable():
    assert spread({**RUNS, "AB/0": float("nan")}).mean is None


def test_the_interval_draws_seeds_within_each_order():
    """Drawn over all runs, an order would now and then be missing altogether."""
    value = measured("path-spread", {"utility": RUNS, "order": ORDER}).value
    low, high = value.interval
    assert 0.30 <= low < 0.35 < high <= 0.40
