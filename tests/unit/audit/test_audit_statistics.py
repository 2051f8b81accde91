"""Excess recovery and its bounds: closed forms, invariants, coverage."""

import time

import numpy as np
import pytest

from expunge.audit.deciding import decision_points, rows_to_decide
from expunge.audit.statistics import (
    Leaks,
    Recovery,
    exact_upper,
    holm,
    mean_leak,
    recover,
    replicate_means,
    resample,
    resamples,
    unit_of,
)
from expunge.requests.rows import Row


def leaks_of(original: object, model: object, control: object) -> Leaks:
    arrays = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (original, model, control))
    first, second, third = arrays
    return Leaks(original=first, model=second, control=third)


def ones(n: int, k: int) -> np.ndarray:
    return np.arange(n) < k


def recovery_of(
    n: int, k: int, *, control: int = 0, threshold: float = 0.1, paired: bool = True
) -> Recovery:
    draws = resamples(range(n), None if paired else range(n), seed=3)
    return recover(leaks_of(np.ones(n), ones(n, k), ones(n, control)), draws, threshold)


@pytest.mark.parametrize(("n", "bound"), [(40, 0.0722), (80, 0.0368), (299, 0.0100)])
def test_exact_bound_of_no_event_is_the_published_one(n: int, bound: float) -> None:
    assert exact_upper(n) == pytest.approx(bound, abs=5e-5)


def test_exact_bound_says_nothing_without_rows() -> None:
    assert exact_upper(0) == 1.0


@pytest.mark.parametrize(
    ("original", "model", "control", "value"),
    [(0.9, 0.5, 0.1, 0.5), (1.0, 0.0, 0.0, 0.0), (0.8, 0.8, 0.2, 1.0), (0.9, 0.05, 0.1, 0.0)],
)
def test_recovery_is_the_share_of_the_gap(
    original: float, model: float, control: float, value: float
) -> None:
    rows = [np.full(30, x) for x in (original, model, control)]
    result = recover(leaks_of(*rows), resamples(range(30), None, seed=0), 0.1)
    assert result.value == pytest.approx(value)
    assert result.interval == pytest.approx((value, value), abs=1e-9) or value == 0.0


def test_recovery_beyond_the_original_is_clipped_to_one() -> None:
    rows = [np.full(30, x) for x in (0.5, 0.9, 0.0)]
    assert recover(leaks_of(*rows), resamples(range(30), None, seed=0), 0.1).value == 1.0


def test_all_zero_takes_the_exact_bound_scaled_by_the_gap() -> None:
    result = recover(
        leaks_of(ones(80, 64), np.zeros(80), np.zeros(80)), resamples(range(80), None, seed=0), 0.1
    )
    assert result.upper == pytest.approx(exact_upper(80) / 0.8)
    assert result.interval is not None
    assert result.interval[1] == pytest.approx(exact_upper(80, 0.025) / 0.8)


def test_one_leaking_row_of_one_does_not_fail_by_bootstrap_alone() -> None:
    assert recovery_of(1, 1).p == pytest.approx(0.1)


def test_pairing_narrows_the_interval_when_control_and_model_agree_by_row() -> None:
    rng = np.random.default_rng(0)
    shared = rng.random(100) * 0.6
    leaks = leaks_of(np.ones(100), np.clip(shared + 0.1, 0, 1), shared)
    paired = recover(leaks, resamples(range(100), None, seed=1), 0.1)
    alone = recover(leaks, resamples(range(100), range(100), seed=1), 0.1)
    assert paired.interval is not None
    assert alone.interval is not None
    width, wide = (b - a for a, b in (paired.interval, alone.interval))
    assert width < 0.5 * wide


def test_clusters_widen_the_interval() -> None:
    leaking = np.repeat(np.arange(20) < 8, 10).astype(float)
    leaks = leaks_of(np.ones(200), leaking, np.zeros(200))
    by_fact = recover(leaks, resamples(range(200), None, seed=1), 0.1)
    by_subject = recover(leaks, resamples(np.repeat(np.arange(20), 10).tolist(), None, seed=1), 0.1)
    assert by_fact.interval is not None
    assert by_subject.interval is not None
    narrow, wide = (b - a for a, b in (by_fact.interval, by_subject.interval))
    assert wide == pytest.approx(np.sqrt(10) * narrow, rel=0.2)


def test_subjects_are_the_unit_from_twenty_on() -> None:
    def rows(n: int) -> list[Row]:
        return [Row(id=f"{s}-{i}", subject=f"s{s}") for s in range(n) for i in range(2)]

    assert unit_of(rows(19))[0] == "fact"
    unit, units = unit_of([*rows(20), Row(id="none")])
    assert unit == "subject"
    assert units[:4] == [0, 0, 1, 1]
    assert len(set(units)) == 21


def test_undefined_replicates_are_dropped_and_counted() -> None:
    original = ones(10, 2)  # many resamples hold neither of the two known rows
    leaks = leaks_of(original, ones(10, 1), np.zeros(10))
    result = recover(leaks, resamples(range(10), None, seed=0), 0.1)
    expected = 0.8**10
    assert result.dropped == pytest.approx(expected, abs=0.03)
    assert result.interval is not None
    assert np.isfinite(result.interval).all()


def test_too_small_a_gap_has_no_recovery() -> None:
    leaks = leaks_of(np.full(50, 0.3), np.full(50, 0.3), np.full(50, 0.25))
    result = recover(leaks, resamples(range(50), None, seed=0), 0.1)
    assert (result.value, result.interval, result.p) == (None, None, None)


def test_rows_not_tested_do_not_count() -> None:
    half = np.array([1.0, np.nan, 0.0, np.nan])
    assert mean_leak(half[None]) == 0.5
    weights = np.array([[1.0, 9.0, 3.0, 9.0]])
    assert replicate_means(weights, half[None], np.ones((1, 1)))[0] == pytest.approx(0.25)


def test_repeated_runs_are_resampled_too() -> None:
    calm = leaks_of(np.ones((3, 50)), np.full((3, 50), 0.4), np.zeros((3, 50)))
    restless = leaks_of(
        np.ones((3, 50)), np.repeat([[0.2], [0.4], [0.6]], 50, axis=1), np.zeros((3, 50))
    )
    draws = resamples(range(50), None, seed=0)
    still, moving = recover(calm, draws, 0.1), recover(restless, draws, 0.1)
    assert still.value == pytest.approx(moving.value)
    assert still.interval == pytest.approx((0.4, 0.4))
    assert moving.interval is not None
    assert moving.interval[1] - moving.interval[0] > 0.2


def test_resampling_keeps_the_number_of_units_and_the_order_of_names() -> None:
    weights = resample([0, 0, 1, 2], 500, 5, "a")
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 1:].sum(axis=1) == 3).all()
    assert not np.array_equal(weights, resample([0, 0, 1, 2], 500, 5, "b"))
    np.testing.assert_array_equal(weights, resample([0, 0, 1, 2], 500, 5, "a"))


def test_holm_stops_at_the_first_claim_that_falls() -> None:
    p_values = {"a": 0.001, "b": 0.04, "c": 0.02, "d": 0.013}
    assert holm(p_values) == {"a": True, "d": True, "c": True, "b": True}
    assert holm(p_values | {"e": 0.2}) == {
        "a": True,
        "d": False,
        "c": False,
        "b": False,
        "e": False,
    }


@pytest.mark.parametrize(
    ("n", "passes", "fails"), [(40, 0.05, 0.28), (96, 0.06, 0.22), (200, 0.075, 0.185)]
)
def test_decision_points_match_the_measured_table(n: int, passes: float, fails: float) -> None:
    result = recovery_of(n, round(0.1 * n), control=n // 96)
    pass_at, fail_at = decision_points(result, tests=9)
    assert pass_at == pytest.approx(passes, abs=0.02)
    assert fail_at == pytest.approx(fails, abs=0.02)


def test_a_recovery_at_the_decision_point_decides() -> None:
    pass_at, fail_at = decision_points(recovery_of(100, 10), tests=1)
    assert pass_at is not None
    assert fail_at is not None
    below, above = (
        recovery_of(100, int(100 * pass_at) - 1),
        recovery_of(100, int(100 * fail_at) + 2),
    )
    assert below.upper is not None
    assert below.upper <= 0.1
    assert above.p is not None
    assert above.p <= 0.05


def test_rows_that_would_decide_are_enough() -> None:
    undecided = recovery_of(50, 3)
    assert undecided.upper is not None
    assert undecided.upper > 0.1
    needed = rows_to_decide(undecided, tests=9)
    assert needed is not None
    decided = recovery_of(needed, round(0.06 * needed))
    assert decided.upper is not None
    assert decided.upper <= 0.11


def test_rows_for_power_follow_the_exact_bound() -> None:
    powerless = recovery_of(20, 0)
    assert not powerless.has_power
    needed = rows_to_decide(powerless, tests=9)
    assert needed == 29  # 1 - .05 ** (1 / 29) = .098
    assert recovery_of(needed, 0).has_power
    assert not recovery_of(needed - 1, 0).has_power


def coverage(share_of_model: float, n: int, simulations: int = 1000) -> float:
    """How often the 95% interval holds the true recovery; one set of resamples serves all."""
    rng = np.random.default_rng(7)
    draws = resamples(range(n), None, seed=0, replicates=600)
    truth = (share_of_model - 0.05) / 0.9
    held = 0
    for _ in range(simulations):
        rows = [(rng.random(n) < share).astype(float) for share in (0.95, share_of_model, 0.05)]
        interval = recover(leaks_of(*rows), draws, 0.1).interval
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
    return held / simulations


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_interval_covers_the_truth_as_often_as_it_says(share: float) -> None:
    assert 0.92 <= coverage(share, n=80) <= 0.98


def test_statistics_of_one_audit_take_less_than_three_tenths_of_a_second() -> None:
    rng = np.random.default_rng(0)
    start = time.process_time()
    draws = resamples(range(96), range(144), seed=0)
    for _ in range(12):
        rows = [rng.random(n) for n in (96, 96, 144)]
        result = recover(leaks_of(*rows), draws, 0.1)
        decision_points(result, 12)
    assert time.process_time() - start < 0.6  # twice the promise: the machine is shared
