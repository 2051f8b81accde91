"""Outcomes of attacks and families, and the erasure score."""

import numpy as np
import pytest

from expunge.audit.outcomes import Rules, erasure, family_outcome, judge
from expunge.audit.statistics import Leaks, Recovery, recover, resamples
from expunge.core.results import Outcome

PASS, FAIL = Outcome.PASS, Outcome.FAIL
UNINFORMATIVE, INCONCLUSIVE = Outcome.UNINFORMATIVE, Outcome.INCONCLUSIVE


def recovery(
    n: int, model: int, *, original: int | None = None, control: int = 0, threshold: float = 0.1
) -> Recovery:
    rows = [
        (np.arange(n) < k).astype(np.float64)[None]
        for k in (n if original is None else original, model, control)
    ]
    leaks = Leaks(original=rows[0], model=rows[1], control=rows[2])
    return recover(leaks, resamples(range(n), None, seed=0), threshold)


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ((80, 0), PASS),
        ((80, 2), PASS),
        ((80, 9), INCONCLUSIVE),
        ((80, 40), FAIL),
        ((24, 0), UNINFORMATIVE),
        ((24, 20), FAIL),
    ],
)
def test_outcome_of_one_attack(case: tuple[int, int], outcome: Outcome) -> None:
    assert judge({"a": recovery(*case)})["a"].outcome is outcome


def test_a_small_gap_comes_before_everything() -> None:
    judged = judge({"a": recovery(80, 80, original=80, control=74)})["a"]
    assert judged.outcome is UNINFORMATIVE
    assert "0.07" in judged.note or "0.08" in judged.note


def test_no_power_says_so_and_how_many_rows_would_decide() -> None:
    judged = judge({"a": recovery(20, 0)})["a"]
    assert judged.note.startswith("no power")
    assert judged.rows_to_decide == 29
    assert judged.would_pass_at is None


def test_failing_needs_more_when_more_attacks_share_the_level() -> None:
    borderline = recovery(80, 15)
    assert judge({"a": borderline})["a"].outcome is FAIL
    crowd = {f"b{i}": recovery(80, 9) for i in range(40)}
    assert judge({"a": borderline, **crowd})["a"].outcome is INCONCLUSIVE


def test_an_attack_that_broke_its_own_rules_decides_nothing() -> None:
    judged = judge({"a": recovery(80, 0)}, Rules(invalid={"a": "destroyed the model"}))["a"]
    assert (judged.outcome, judged.note) == (INCONCLUSIVE, "destroyed the model")


def test_undefined_replicates_beyond_one_in_twenty_decide_nothing() -> None:
    shaky = recovery(10, 2, original=2)
    assert shaky.dropped > 0.05
    assert judge({"a": shaky})["a"].outcome is INCONCLUSIVE


@pytest.mark.parametrize(
    ("attacks", "family"),
    [
        ([], INCONCLUSIVE),
        ([PASS, PASS], PASS),
        ([PASS, FAIL, INCONCLUSIVE], FAIL),
        ([PASS, INCONCLUSIVE], INCONCLUSIVE),
        ([PASS, UNINFORMATIVE], PASS),
        ([UNINFORMATIVE], UNINFORMATIVE),
    ],
)
def test_family_outcome(attacks: list[Outcome], family: Outcome) -> None:
    assert family_outcome(attacks) is family


def test_erasure_is_the_worst_family_times_utility_and_breadth_the_mean() -> None:
    recoveries = {"a": recovery(80, 40), "b": recovery(80, 8), "c": recovery(80, 0)}
    families = {"a": "prompt", "b": "direct", "c": "direct"}
    result = erasure(recoveries, families, 0.8, np.full(2000, 0.8))
    assert result.score == pytest.approx(0.5 * 0.8)
    assert result.breadth == pytest.approx((0.5 + 0.9) / 2)
    assert result.interval is not None
    assert result.interval[0] < 0.4 < result.interval[1]


def test_original_and_ruins_score_zero_and_a_retrained_model_one() -> None:
    families = {"a": "direct"}
    sound, ruined = np.ones(2000), np.zeros(2000)
    assert erasure({"a": recovery(80, 80)}, families, 1.0, sound).score == 0
    assert erasure({"a": recovery(80, 0)}, families, 0.0, ruined).score == 0
    assert erasure({"a": recovery(80, 0)}, families, 1.0, sound).score == 1


def test_nothing_informative_has_no_score() -> None:
    blind = {"a": recovery(80, 0, original=4)}
    assert erasure(blind, {"a": "direct"}, 1.0, np.ones(2000)).score is None
