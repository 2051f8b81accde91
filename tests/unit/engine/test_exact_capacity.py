"""How many deletions an ensemble survives, by formula and played through; orders of slices."""

from collections import Counter
from itertools import permutations
from math import factorial

import numpy as np
import pytest

from expunge.engine.exact.capacity import (
    expected_deletions,
    expected_hits,
    harmonic,
    row_epochs,
    simulated_deletions,
    stage_rows,
)
from expunge.engine.exact.partition import place
from expunge.engine.exact.sequences import cyclic, matching, sampling, score

CARD = {1: 68.5, 2: 87.9, 3: 99.5, 6: 119.8}
"""Of five shards of six slices: sequences -> deletions until all is lost."""

RUNS = 400


def test_the_card_s_closed_forms() -> None:
    found = {count: round(expected_deletions(5, 6, count), 1) for count in CARD}
    assert found == CARD
    assert expected_deletions(1, 4) == 4.0
    assert expected_deletions(5, 6, 9) == expected_deletions(5, 6, 6)


@pytest.mark.parametrize("count", CARD)
def test_played_through_it_is_the_closed_form(count: int) -> None:
    """One seed; the standard error over 400 runs is about 2%."""
    played = simulated_deletions(5, cyclic(range(6), count), runs=RUNS, seed=7)
    assert np.mean(played) == pytest.approx(CARD[count], rel=0.05)
    assert min(played) >= 5 * count


def test_without_distinct_first_slices_the_game_is_a_shorter_one() -> None:
    """What rotations are for: sequences that begin alike die together."""
    alike = [(0, *rest) for rest in list(permutations(range(1, 6)))[:3]]
    played = simulated_deletions(5, alike, runs=RUNS, seed=7)
    assert np.mean(played) == pytest.approx(CARD[1], rel=0.05)


def test_unequal_cells_take_longer_and_equal_ones_are_the_harmonic_number() -> None:
    assert expected_hits([1 / 30] * 5) == pytest.approx(30 * harmonic(5), rel=1e-6)
    assert expected_hits([0.5]) == pytest.approx(2.0, rel=1e-6)
    # two cells, by hand: 1/p + 1/q - 1/(p+q)
    assert expected_hits([0.3, 0.1]) == pytest.approx(1 / 0.3 + 10 - 1 / 0.4, rel=1e-6)
    assert expected_hits([0.2, 0.0]) == float("inf")
    assert expected_hits([]) == 0.0
    assert expected_hits([1e-6, 0.5]) == pytest.approx(1e6 + 2 - 1 / (0.5 + 1e-6), rel=1e-6)


def test_costs_are_rows_times_passes() -> None:
    rows = stage_rows([5, 1, 0, 2], (3, 0, 1, 2))
    assert rows == [2, 7, 8, 8]
    assert row_epochs(rows, 3) == 75
    assert row_epochs(rows, 3, first=2) == 48


# ------------------------------------------------------------------------------------ orders


def test_rotations_have_distinct_slices_at_every_position() -> None:
    orders = cyclic((2, 0, 3, 1), 3)
    assert orders == [(2, 0, 3, 1), (0, 3, 1, 2), (3, 1, 2, 0)]
    assert all(len(set(column)) == 3 for column in zip(*orders, strict=True))


@pytest.mark.parametrize("count", [5, 8, 13, 24])
def test_a_tree_of_more_sequences_than_slices_stays_balanced(count: int) -> None:
    """All different, and every prefix is shared by as many as every other of its length."""
    orders = cyclic(range(4), count)
    assert len(set(orders)) == count
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    firsts = Counter(order[0] for order in orders)
    assert max(firsts.values()) - min(firsts.values()) <= 1
    for first in range(4):
        below = Counter(order[1] for order in orders if order[0] == first)
        assert max(below.values()) - min((below[s] for s in below), default=0) <= 1


def test_more_sequences_than_permutations_are_refused() -> None:
    assert len(cyclic(range(3), factorial(3))) == 6
    with pytest.raises(ValueError, match="7 different orders of 3"):
        cyclic(range(3), 7)


def test_the_score_by_hand() -> None:
    p = (0.2, 0.1, 0.3)
    by_hand = 1 * 0.8**2 + 2 * 0.7**2 + 3 * 0.4**2
    assert score(p, exponent=2) == pytest.approx(by_hand)
    assert score((0.1, 0.2, 0.3), 2) > score(p, 2)


def test_matching_begins_once_with_each_slice_and_puts_the_safe_ones_early() -> None:
    chances = (0.4, 0.3, 0.2, 0.1)
    orders = matching(chances)
    assert [order[0] for order in orders] == [0, 1, 2, 3]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert all(len(set(column)) == 4 for column in zip(*orders, strict=True))
    by_rotation = sum(score([chances[i] for i in order]) for order in cyclic(range(4), 4))
    assert sum(score([chances[i] for i in order]) for order in orders) > by_rotation
    second = {order[0]: order[1] for order in orders}
    assert second[2] == 3, "of two slices that are seldom hit each stands behind the other"
    assert second[3] == 2


def test_sampling_prefers_slices_that_are_seldom_hit() -> None:
    chances = (0.9, 0.05, 0.03, 0.02)
    orders = [order for seed in range(40) for order in sampling(chances, 3, seed)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    last = Counter(order[-1] for order in orders)
    assert last[0] > len(orders) / 2
    assert sampling(chances, 3, 1) == sampling(chances, 3, 1) != sampling(chances, 3, 2)
    assert len(sampling((0.5, 0.5), 5, 0)) == 2, "there are no more"


# --------------------------------------------------------------------------------- partition


def test_a_row_s_place_hangs_on_row_and_salt_alone() -> None:
    keys = [f"{number:064x}" for number in range(3000)]
    places = [place(key, "salt", 5, 6) for key in keys]
    assert places == [place(key, "salt", 5, 6) for key in keys]
    assert places != [place(key, "pepper", 5, 6) for key in keys]
    assert {s for s, _ in places} == set(range(5))
    assert {i for _, i in places} == set(range(6))
    counts = Counter(places)
    assert len(counts) == 30
    assert 60 < min(counts.values()) <= max(counts.values()) < 140, "neighbours do not gather"
