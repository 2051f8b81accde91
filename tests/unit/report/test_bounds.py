"""Intervals from the numbers of a record: by hand, by simulation, at their ends."""

import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.report.bounds import area, margin, placed, wilson


def test_wilson_by_hand():
    assert wilson(0.0, 40) == pytest.approx((0.0, 0.0876), abs=1e-4)
    assert wilson(2 / 40, 40) == pytest.approx((0.0138, 0.1650), abs=1e-4)
    assert wilson(0.5, 0) is None


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_wilson_holds_the_mean_and_mirrors(mean, n):
    low, high = wilson(mean, n)
    assert 0 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1
    assert wilson(1 - mean, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_the_band_of_a_distribution_by_hand():
    assert margin(80) == pytest.approx((3.6889 / 160) ** 0.5, abs=1e-4)
    assert margin(0) is None


def auc_of(members, others):
    """AUC with the placements of both sides."""
    up = {str(at): fmean(o < m for o in others) for at, m in enumerate(members)}
    down = [fmean(m > o for m in members) for o in others]
    return fmean(up.values()), up, down


def draw(rng, n, shift):
    members = [rng.gauss(shift, 1) for _ in range(n)]
    return auc_of(members, [rng.gauss(0, 1) for _ in range(n)])


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_intervals_of_an_auc_hold_it_about_as_often_as_they_say(shift):
    rng = random.Random(7)
    truth = draw(random.Random(1), 1500, shift)[0]
    inside = {"placed": 0, "area": 0}
    for _ in range(200):
        auc, members, others = draw(rng, 60, shift)
        for name, (low, high) in (
            ("placed", placed(members, others, {})),
            ("area", area(auc, 60, 60)),
        ):
            inside[name] += low <= truth <= high
    assert min(inside.values()) >= 180
    assert max(inside.values()) <= 199


def test_members_of_one_subject_count_together():
    rng = random.Random(3)
    _, members, others = draw(rng, 60, 0.5)
    ordered = dict(sorted(members.items(), key=lambda pair: pair[1]))
    units = {row: f"subject {at // 10}" for at, row in enumerate(ordered)}  # like rows together
    alone, together = placed(members, others, {}), placed(members, others, units)
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])


@pytest.mark.parametrize("auc", [0.0, 1.0])
def test_an_auc_at_its_end_still_has_a_width(auc):
    low, high = area(auc, 30, 30)
    assert high - low > 0.05
    rows = {str(at): auc for at in range(30)}
    assert placed(rows, [auc] * 30, {}) == pytest.approx((low, high))


def test_too_few_rows_have_no_interval():
    assert placed({"a": 0.5}, [0.5, 0.5], {}) is None
    assert area(0.5, 0, 30) is None
