"""Utility relative to the original: closed values, worst stratum, measure, interval."""

import numpy as np
import pytest

from expunge.audit.utility import MOST_ROWS, Answers, kept_rows, strata, utility
from expunge.requests.rows import Row


def answers(recall: list[float], accuracy: float = 0.9, gibberish: float = 0.0) -> Answers:
    n = len(recall)
    return Answers(
        recall=np.array(recall),
        accuracy=np.full(n, accuracy),
        gibberish=np.full(n, gibberish),
    )


RETAIN, NEAR, FAR = ("retain", ""), ("neighbour", "near"), ("neighbour", "far")


def test_utility_is_the_ratio_of_harmonic_means_with_the_worst_stratum() -> None:
    groups = [RETAIN] * 10 + [NEAR] * 10 + [FAR] * 10
    model = answers([0.8] * 10 + [0.4] * 10 + [1.0] * 10)
    result = utility(model, answers([1.0] * 30), groups, seed=0)
    assert result is not None
    assert result.value == pytest.approx(2 / (1 / 0.8 + 1 / 0.4))
    assert result.parts == {
        "retain": pytest.approx((0.8, 1.0)),
        "neighbour": pytest.approx((0.4, 1.0)),
    }


def test_every_stratum_is_told_with_its_interval() -> None:
    groups = [RETAIN] * 10 + [NEAR] * 10 + [FAR] * 20
    model = answers([0.8] * 10 + [0.0, 1.0] * 5 + [1.0] * 20)
    result = utility(model, answers([1.0] * 40), groups, seed=0)
    assert result is not None
    told = {name: (one.model, one.original, one.rows) for name, one in result.strata.items()}
    assert told == {
        "retain": (pytest.approx(0.8), 1.0, 10),
        "neighbour/near": (0.5, 1.0, 10),
        "neighbour/far": (1.0, 1.0, 20),
    }
    assert result.strata["neighbour/far"].interval == (1.0, 1.0)
    low, high = result.strata["neighbour/near"].interval
    assert 0.1 < low < 0.5 < high < 0.9


def test_utility_is_relative_and_never_above_one() -> None:
    result = utility(answers([0.9] * 20), answers([0.6] * 20), [RETAIN] * 20, seed=0)
    assert result is not None
    assert result.value == 1.0
    assert result.interval == (1.0, 1.0)


def test_a_model_without_any_recall_has_no_utility() -> None:
    result = utility(answers([0.0] * 20), answers([0.9] * 20), [RETAIN] * 20, seed=0)
    assert result is not None
    assert result.value == 0.0


def test_running_text_is_measured_by_token_accuracy() -> None:
    model, original = answers([0.0] * 20, accuracy=0.3), answers([0.0] * 20, accuracy=0.6)
    result = utility(model, original, [RETAIN] * 20, seed=0)
    assert result is not None
    assert result.measure == "token accuracy"
    assert result.value == pytest.approx(0.5)


def test_an_original_of_no_use_leaves_nothing_to_compare_with() -> None:
    nothing = answers([0.0] * 5, accuracy=0.0)
    assert utility(nothing, nothing, [RETAIN] * 5, seed=0) is None


def test_gibberish_is_reported_of_both() -> None:
    result = utility(
        answers([1.0] * 4, gibberish=0.5), answers([1.0] * 4, gibberish=0.25), [RETAIN] * 4, seed=0
    )
    assert result is not None
    assert result.gibberish == (0.5, 0.25)


def test_interval_holds_the_value_and_narrows_with_rows() -> None:
    def width(n: int) -> float:
        half = [1.0, 0.0] * (n // 2)
        result = utility(answers(half), answers([1.0] * n), [RETAIN] * n, seed=0)
        assert result is not None
        assert result.interval[0] < result.value < result.interval[1]
        return result.interval[1] - result.interval[0]

    assert width(160) == pytest.approx(width(40) / 2, rel=0.2)


def test_rows_name_their_stratum() -> None:
    retain = [Row(id="a"), Row(id="b", meta={"stratum": "general"})]
    neighbour = [Row(id="c", meta={"stratum": "cousins"}), Row(id="d")]
    assert strata(retain, neighbour) == [
        ("retain", ""),
        ("general", ""),
        ("neighbour", "cousins"),
        ("neighbour", ""),
    ]


def test_many_rows_are_cut_to_the_same_ones_in_order() -> None:
    rows = [Row(id=str(i)) for i in range(1000)]
    kept = kept_rows(rows, 3, "retain")
    assert len(kept) == MOST_ROWS
    assert kept == kept_rows(rows, 3, "retain")
    assert kept == sorted(kept, key=lambda row: int(row.id))
    assert kept != kept_rows(rows, 4, "retain")
