"""Coreset effect: the smallest share that does what all rows do."""

import pytest

from expunge.core.measuring import measured
from expunge.testing.metrics import measure

SHARES = (0.01, 0.05, 0.25, 1.0)


def table(effectiveness, utility=(0.7, 0.7, 0.7, 0.7), shares=SHARES):
    return {
        "share": list(shares),
        "effectiveness": list(effectiveness),
        "utility": list(utility),
    }


def index(*given, **params):
    return measure("coreset-effect", table(*given), **params).mean


def test_it_is_the_smallest_share_within_both_margins():
    assert index([0.2, 0.77, 0.8, 0.8]) == 0.05
    assert index([0.2, 0.75, 0.79, 0.8]) == 0.25
    assert index([0.2, 0.3, 0.4, 0.8]) == 1.0


def test_a_share_that_costs_utility_does_not_count():
    assert index([0.8, 0.8, 0.8, 0.8], [0.67, 0.69, 0.7, 0.7]) == 0.05
    assert index([0.8, 0.8, 0.8, 0.8], [0.67, 0.69, 0.7, 0.7], loss=0.0) == 0.25


def test_better_than_all_rows_is_no_fault():
    assert index([0.9, 0.9, 0.9, 0.8], [0.9, 0.7, 0.7, 0.7]) == 0.01


def test_seeds_are_averaged_before_shares_are_compared():
    """One lucky draw of one row must not decide."""
    runs = {
        "share": {"a": 0.01, "b": 0.01, "c": 1.0, "d": 1.0},
        "effectiveness": {"a": 0.8, "b": 0.2, "c": 0.8, "d": 0.8},
        "utility": dict.fromkeys("abcd", 0.7),
    }
    assert measure("coreset-effect", runs).mean == 1.0


@pytest.mark.parametrize(
    ("effectiveness", "shares", "why"),
    [
        ([0.5, 0.5], [0.1, 0.5], "no run was given all rows"),
        ([0.5, 0.0], [0.1, 1.0], "forgot nothing"),
        ([float("nan"), 0.5], [0.1, 1.0], "not a number"),
    ],
)
def test_what_cannot_be_compared_says_so(effectiveness, shares, why):
    value = measure("coreset-effect", table(effectiveness, [0.5, 0.5], shares))
    assert value.mean is None
    assert why in value.note


def test_the_interval_keeps_effectiveness_and_utility_of_a_run_together():
    """In every run exactly one of the two fails; drawn apart, some replicates would pass."""
    names = {f"{share}/{at}": share for share in (0.1, 1.0) for at in range(4)}
    scores = {
        "share": names,
        "effectiveness": {
            n: 0.8 if s == 1.0 else (0.9 if n[-1] in "01" else 0.61) for n, s in names.items()
        },
        "utility": {
            n: 0.7 if s == 1.0 else (0.6 if n[-1] in "01" else 0.75) for n, s in names.items()
        },
    }
    value = measured("coreset-effect", scores).value
    assert value.mean == 1.0
    assert value.interval[1] == 1.0
    assert value.n == 8
