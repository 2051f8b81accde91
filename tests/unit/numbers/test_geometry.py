"""Clouds of points: closed forms, what leaves them alone, and the traps of small samples."""

import math

import numpy as np
import pytest

from expunge.numbers.geometry import (
    cka,
    components,
    cross_asked,
    debiased_cka,
    neighbour_labels,
    pca_shift,
    pca_similarity,
    ridge_labels,
)

CROSS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
BOX = np.array([[3.0, 0, 0], [-3, 0, 0], [0, 2, 0], [0, -2, 0], [0, 0, 0.5], [0, 0, -0.5]])
"""Principal directions are the axes, in their order."""


def draw(rows, width, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width))


def rotation(width, seed=1):
    return np.linalg.qr(draw(width, width, seed))[0]


def by_gram_matrices(x, y):
    """The unbiased estimate as it is published: Gram matrices without their diagonals."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(m, 0.0)
    one = np.ones(n)
    both = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return np.trace(k @ m) + both - 2 / (n - 2) * (one @ k @ m @ one)


class TestCka:
    def test_closed_forms(self):
        assert cka(CROSS, CROSS) == pytest.approx(1.0)
        assert cka(CROSS, CROSS[:, :1]) == pytest.approx(0.70710678, abs=1e-8)
        # XtX = 2 I, YtY = diag(2, 8), XtY = diag(2, 4): 20 / sqrt(8 * 68)
        assert cka(CROSS, CROSS * [1.0, 2.0]) == pytest.approx(20 / math.sqrt(544))
        across, along = np.array([[1.0], [1], [-1], [-1]]), np.array([[1.0], [-1], [1], [-1]])
        assert cka(across, along) == pytest.approx(0.0)

    @pytest.mark.parametrize("alike", [cka, debiased_cka])
    @pytest.mark.parametrize("shape", [(40, 6), (8, 20)])
    def test_rotation_scale_and_translation_change_nothing(self, alike, shape):
        x, y = draw(*shape), draw(*shape) + draw(*shape, seed=2)
        moved = 3 * x @ rotation(shape[1]) + 7
        assert alike(x, moved) == pytest.approx(1.0)
        assert alike(moved, y) == pytest.approx(alike(x, y))
        assert alike(x, y) == pytest.approx(alike(y, x))

    @pytest.mark.parametrize("alike", [cka, debiased_cka])
    def test_rows_in_another_order_change_nothing_where_both_are_shuffled(self, alike):
        x, y = draw(30, 4), draw(30, 4) + draw(30, 4, seed=2)
        order = np.random.default_rng(0).permutation(30)
        assert alike(x[order], y[order]) == pytest.approx(alike(x, y))
        assert alike(x[order], y) < alike(x, y) - 0.1

    def test_a_scaled_direction_changes_it(self):
        x = draw(50, 3)
        assert cka(x, x * [5.0, 1.0, 1.0]) < 0.9

    def test_few_rows_flatter_the_plain_form_and_not_the_debiased_one(self):
        plain = np.mean([cka(draw(20, 200, s), draw(20, 200, s + 50)) for s in range(10)])
        fair = [debiased_cka(draw(20, 200, s), draw(20, 200, s + 50)) for s in range(10)]
        assert plain > 0.85
        assert abs(np.mean(fair)) < 0.05

    def test_many_rows_bring_the_two_together(self):
        x = draw(3000, 4)
        y = x + draw(3000, 4, seed=2)
        assert debiased_cka(x, y) == pytest.approx(cka(x, y), abs=5e-3)

    @pytest.mark.parametrize("shape", [(12, 3), (6, 9)])
    def test_the_debiased_form_is_that_of_gram_matrices(self, shape):
        x, y = draw(*shape), draw(*shape) + 0.5 * draw(*shape, seed=3)
        own = by_gram_matrices(x, x), by_gram_matrices(y, y)
        expected = by_gram_matrices(x, y) / math.sqrt(own[0] * own[1])
        assert debiased_cka(x, y) == pytest.approx(expected)

    def test_what_is_undefined_is_not_a_number(self):
        assert math.isnan(cka(np.ones((5, 2)), draw(5, 2)))
        assert math.isnan(debiased_cka(draw(3, 2), draw(3, 2)))
        assert math.isnan(debiased_cka(np.ones((5, 2)), draw(5, 2)))


class TestDirections:
    def test_shift_is_seen_in_the_plane_of_the_first_two(self):
        moved = BOX + np.array([3.0, 4.0, 12.0])
        assert pca_shift(BOX, moved) == pytest.approx(5.0)
        assert pca_shift(BOX, moved, 1) == pytest.approx(3.0)
        assert pca_shift(BOX, moved, 3) == pytest.approx(13.0)
        assert pca_shift(BOX, BOX) == pytest.approx(0.0)

    def test_similarity_has_no_sign(self):
        assert pca_similarity(BOX, BOX) == pytest.approx(1.0)
        assert pca_similarity(BOX, -BOX) == pytest.approx(1.0)
        assert pca_similarity(BOX, BOX[:, [1, 0, 2]]) == pytest.approx(0.0)
        turned = np.array([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]])
        assert pca_similarity(BOX, turned) == pytest.approx(math.sqrt(0.5))

    def test_a_common_rotation_changes_neither(self):
        x, y, turn = draw(30, 5), draw(30, 5, 2) + 1.0, rotation(5)
        assert pca_shift(x @ turn, y @ turn) == pytest.approx(pca_shift(x, y))
        assert pca_similarity(x @ turn, y @ turn) == pytest.approx(pca_similarity(x, y))

    def test_a_single_point_has_no_direction(self):
        assert len(components(np.ones((4, 3)), 2)) == 0
        assert math.isnan(pca_shift(np.ones((4, 3)), BOX))
        assert math.isnan(pca_similarity(BOX, np.ones((4, 3))))

    def test_directions_without_variance_are_left_out(self):
        assert len(components(BOX * [1.0, 0.0, 0.0], 2)) == 1


class TestProbes:
    def clusters(self, topics=3, each=6, width=8, apart=10.0):
        noise = draw(topics * each, width)
        states = {
            f"{topic}/{row}": noise[topic * each + row] + apart * np.eye(width)[topic]
            for topic in range(topics)
            for row in range(each)
        }
        return states, {row: row.split("/")[0] for row in states}

    @pytest.mark.parametrize("probe", [ridge_labels, lambda *a: neighbour_labels(*a, 3)])
    def test_clusters_are_found_and_noise_is_not(self, probe):
        found = cross_asked(*self.clusters(), probe, folds=5, seed=0)
        assert len(found) == 18
        assert sum(found.values()) == 18
        states, topics = self.clusters(each=40, apart=0.0)
        chance = cross_asked(states, topics, probe, folds=5, seed=0)
        assert 0.15 < np.mean(list(chance.values())) < 0.52

    def test_a_row_never_votes_for_itself(self):
        states = {"a1": [0.0, 1.0], "b1": [0.01, 1.0], "a2": [1.0, 0.0], "b2": [1.0, 0.01]}
        topics = {row: row[0] for row in states}
        given = {row: np.array(state) for row, state in states.items()}
        probe = lambda *a: neighbour_labels(*a, 1)  # noqa: E731
        for seed in range(20):
            found = cross_asked(given, topics, probe, folds=4, seed=seed)
            if len(found) == 4 and all(hit == 0 for hit in found.values()):
                break
        else:
            pytest.fail("the twin of the other topic was never the nearest")

    def test_order_of_rows_changes_nothing_and_the_seed_does(self):
        states, topics = self.clusters(each=9, apart=1.0)
        ask = lambda of, seed: cross_asked(of, topics, ridge_labels, folds=4, seed=seed)  # noqa: E731
        turned = dict(reversed(states.items()))
        assert ask(states, 0) == ask(turned, 0)
        assert any(ask(states, 0) != ask(states, seed) for seed in range(1, 6))

    def test_lonely_and_nameless_rows_are_left_out(self):
        states, topics = self.clusters()
        ask = lambda named: cross_asked(states, named, ridge_labels, folds=5, seed=0)  # noqa: E731
        found = ask(topics | {"0/0": "alone", "1/1": ""})
        assert states.keys() - found.keys() == {"0/0", "1/1"}
        assert ask(dict.fromkeys(states, "one")) == {}

    def test_the_majority_of_neighbours_wins_and_the_nearer_side_a_tie(self):
        seen = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [1.0, 0.3]])
        asked = np.array([[1.0, 0.0]])
        assert neighbour_labels(seen, np.array([0, 1, 1, 0]), asked, 3).tolist() == [1]
        assert neighbour_labels(seen, np.array([0, 1, 1, 0]), asked, 2).tolist() == [0]
        assert neighbour_labels(seen, np.array([1, 0, 0, 1]), asked, 2).tolist() == [1]

    def test_ridge_does_not_see_the_scale_of_a_feature(self):
        seen, labels = draw(20, 4), np.arange(20) % 2
        scale = np.array([1.0, 1e3, 1e-3, 1.0])
        asked = draw(10, 4, 5)
        same = ridge_labels(seen * scale, labels, asked * scale)
        assert same.tolist() == ridge_labels(seen, labels, asked).tolist()
