"""AUCs, true positive rates and closeness, against values worked out by hand."""

import math

import numpy as np
import pytest

from expunge.numbers import membership
from expunge.numbers.membership import attacked, auc, min_k, tpr_at


def arrays(*sides):
    return [np.array(side, dtype=float) for side in sides]


@pytest.mark.parametrize(
    ("members", "others", "expected"),
    [
        ([0.1, 0.2, 0.9], [0.5, 1.0, 1.2], 8 / 9),
        ([1, 2], [3, 4], 1.0),
        ([3, 4], [1, 2], 0.0),
        ([1, 1, 1], [1, 1], 0.5),
        ([1, 2, 2], [2, 3], (1 + 0.5 + 0.5 + 3) / 6),
        ([5], [5, 4, 6, 7], 2.5 / 4),
    ],
)
def test_auc_counts_pairs_and_halves_ties(members, others, expected):
    assert auc(*arrays(members, others)) == pytest.approx(expected, abs=1e-15)


def test_auc_equals_counting_every_pair():
    draw = np.random.default_rng(3)
    members, others = draw.integers(0, 9, 41).astype(float), draw.integers(2, 12, 23).astype(float)
    pairs = [(h > f) + 0.5 * (h == f) for f in members for h in others]
    assert auc(members, others) == pytest.approx(np.mean(pairs), abs=1e-15)
    assert auc(members, others) + auc(others, members) == pytest.approx(1.0, abs=1e-15)
    assert auc(np.exp(members), np.exp(others)) == auc(members, others)


def test_an_auc_of_nothing_is_refused():
    with pytest.raises(ValueError, match="both sides"):
        auc(*arrays([], [1.0]))


class TestTruePositiveRate:
    def test_no_false_positive_is_allowed_below_one_in_a_hundred(self):
        others = np.arange(99.0)
        assert tpr_at(0.01, np.array([-2.0, -1.0, 0.0, 50.0]), others) == 0.5

    def test_one_false_positive_is_allowed_from_one_in_a_hundred(self):
        others = np.arange(100.0)
        members = np.array([-1.0, 0.0, 0.5, 1.0, 50.0])
        assert tpr_at(0.01, members, others) == 3 / 5

    def test_a_tie_accuses_both_sides(self):
        # Any threshold that finds the member accuses two hold-out rows as well.
        assert tpr_at(0.01, np.array([0.0]), np.array([0.0, 0.0, *range(1, 99)])) == 0.0

    def test_it_is_the_best_threshold_of_all(self):
        draw = np.random.default_rng(5)
        members, others = draw.normal(-1, 1, 300), draw.normal(0, 1, 1000)
        for rate in (0.001, 0.01, 0.1):
            best = max(
                (members <= cut).mean()
                for cut in [-math.inf, *members]
                if (others <= cut).mean() <= rate
            )
            assert tpr_at(rate, members, others) == best


@pytest.mark.parametrize(
    ("own", "reference", "largest", "relative", "ratio"),
    [
        (0.5, 0.5, 1.0, 1.0, 1.0),
        (1.0, 0.4, 1 - 0.6 / 0.6, 0.0, 0.4),
        (0.0, 0.4, 1 - 0.4 / 0.6, 0.0, 0.0),
        (0.9, 0.6, 0.5, 0.5, 2 / 3),
        (0.0, 0.0, 1.0, 1.0, 0.0),
    ],
)
def test_closeness_by_hand(own, reference, largest, relative, ratio):
    assert membership.privacy_score(own, reference) == pytest.approx(largest)
    assert membership.relative_score(own, reference) == pytest.approx(relative)
    assert membership.ratio_score(own, reference) == pytest.approx(ratio)


def test_privacy_leakage_of_the_card():
    # A(M_u) = .0031 and A(M_r) = .4772 in the orientation of MUSE.
    assert membership.privacy_leakage(1 - 0.0031, 1 - 0.4772) == pytest.approx(-99.350377, abs=1e-6)


@pytest.mark.parametrize(("own", "expected"), [(1.0, -100.0), (0.5, 0.0), (0.0, 100.0)])
def test_privacy_leakage_of_memory_likeness_and_overshooting(own, expected):
    assert membership.privacy_leakage(own, 0.5) == pytest.approx(expected, abs=1e-6)


def test_privacy_leakage_beside_a_reference_that_knows_all_is_undefined():
    assert math.isnan(membership.privacy_leakage(0.5, 1.0))


class TestMinK:
    def test_value_of_the_card(self):
        logp = np.log([0.9, 0.5, 0.1, 0.01, 0.8])
        assert min_k(logp, 0.4) == pytest.approx(3.4538776395, abs=1e-10)

    def test_a_short_text_gives_its_lowest_token_and_not_nan(self):
        assert min_k([-0.5, -2.0], 0.4) == 2.0
        assert min_k([-0.5], 0.05) == 0.5

    def test_the_number_of_tokens_is_rounded_down(self):
        # .4 of 9 tokens are 3.6: three of them.
        assert min_k([-9, -8, -7, -6, -5, -4, -3, -2, -1], 0.4) == 8.0

    def test_the_whole_share_is_the_mean(self):
        assert min_k([-1.0, -2.0, -6.0], 1.0) == 3.0


class TestAttacked:
    """What all attacks share, on an attack whose score is the reading itself."""

    @staticmethod
    def value(scores, reference=None, **options):
        return attacked(scores, reference, ("x",), float, **options)

    def test_without_a_side_it_is_not_measurable_and_says_which(self):
        assert "holdout.x" in self.value({"x": [1.0]}).note
        assert self.value({"holdout.x": [1.0]}).mean is None

    def test_a_score_that_is_not_a_number_is_not_measurable(self):
        value = self.value({"x": [1.0, math.nan], "holdout.x": [1.0]})
        assert value.mean is None
        assert "1 of 2 rows is not a number (1)" in value.note

    def test_rows_that_lack_a_reading_are_counted(self):
        value = self.value({"x": {"a": 1.0, "b": None}, "holdout.x": [2.0]})
        assert value.mean == 1.0
        assert value.n == 1
        assert "1 of 2 rows have no x" in value.note

    def test_rates_too_fine_for_the_holdout_are_said_and_not_given(self):
        value = self.value({"x": [1.0], "holdout.x": list(range(99))})
        assert "tpr_at_1_percent" not in value.parts
        assert "TPR at 1.0% FPR is not measurable: 99 hold-out rows" in value.note
        value = self.value({"x": [1.0], "holdout.x": list(range(100))})
        assert value.parts == {"tpr_at_1_percent": 0.0}
        assert "0.1% FPR is not measurable: 100 hold-out rows, and it takes 1000" in value.note
        value = self.value({"x": [-1.0], "holdout.x": list(range(1000))})
        assert value.parts == {"tpr_at_1_percent": 1.0, "tpr_at_0.1_percent": 1.0}
        assert "not measurable" not in value.note

    def test_a_reference_gives_its_auc_and_the_closeness(self):
        model = {"x": [1.0, 3.0], "holdout.x": [2.0, 4.0]}
        reference = {"x": [1.0, 4.0], "holdout.x": [2.0, 3.0]}
        value = self.value(model, reference)
        assert value.mean == 0.75
        assert value.parts == {"auc_reference": 0.5, "s": 0.5}
        assert value.beside["reference_holdout"] == {"0": 2.0, "1": 3.0}

    def test_a_reference_without_readings_leaves_the_auc_and_says_so(self):
        value = self.value({"x": [1.0], "holdout.x": [2.0]}, {"x": [1.0]})
        assert value.mean == 1.0
        assert "no s: of the reference, no row has holdout.x" in value.note

    def test_ready_scores_go_before_readings(self):
        scores = {"x": [9.0], "holdout.x": [0.0], "score": [1.0], "holdout.score": [2.0]}
        assert self.value(scores).mean == 1.0

    def test_rows_in_another_order_change_nothing(self):
        own = {"x": {"a": 1.0, "b": 3.0}, "holdout.x": {"c": 2.0, "d": 4.0}}
        turned = {name: dict(reversed(rows.items())) for name, rows in own.items()}
        assert self.value(own, turned).parts["s"] == self.value(own, own).parts["s"] == 1.0
        assert self.value(turned).mean == self.value(own).mean


@pytest.mark.parametrize("side", ["x", "holdout.x"])
def test_a_reference_of_other_rows_is_refused_unless_allowed(side):
    from expunge.core.errors import ExpungeError

    own = {"x": {"a": 1.0, "b": 3.0}, "holdout.x": {"c": 2.0, "d": 4.0}}
    cut = {**own, side: dict(list(own[side].items())[:1])}
    with pytest.raises(ExpungeError, match="1 rows were measured on one") as refusal:
        attacked(own, cut, ("x",), float)
    assert refusal.value.code == "E-DATA-013"
    assert attacked(own, cut, ("x",), float, allow_unmatched=True).mean == 0.75


def test_a_need_of_another_role_keeps_its_model():
    assert membership.of_role("holdout", "nll") == "holdout.nll"
    assert membership.of_role("holdout", "base:nll") == "base:holdout.nll"


def test_a_token_that_is_no_number_is_not_left_out():
    assert math.isnan(min_k([-1.0, -2.0, float("nan"), -3.0, -0.5], 0.4))
