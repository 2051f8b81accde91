"""Gates on a difference: membership on both sides of the control, and the cost of an attack."""

import numpy as np
import pytest
from scipy.stats import norm

from expunge.audit.differences import ENOUGH_ROWS, Placements, cost, differ
from expunge.audit.outcomes import Rules, judge
from expunge.audit.statistics import FloatArray, Leaks, Recovery, resamples
from expunge.core.results import Outcome
from expunge.core.rng import generator
from expunge.numbers.membership import auc

PASS, FAIL = Outcome.PASS, Outcome.FAIL
UNINFORMATIVE, INCONCLUSIVE = Outcome.UNINFORMATIVE, Outcome.INCONCLUSIVE
MEMBERSHIP = Rules(differences=frozenset({"mia"}))


def placed(members: FloatArray, others: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Placements of both sides."""
    above = (members[:, None] > others).astype(float)
    return above.mean(1)[None], above.mean(0)[None]


def drawn(n: int, shift: float, seed: int = 0, others: int | None = None) -> tuple[FloatArray, ...]:
    rng = generator(seed, "scores", str(shift))
    return rng.normal(shift, 1, n), rng.normal(0, 1, others or n)


def membership(
    n: int, model: float, reference: float | None = None, *, original: float = 5.0, seed: int = 0
) -> Recovery:
    """Members' scores shifted by so much, under three models."""
    of_model, holdout = placed(*drawn(n, model, seed))
    control, beside = placed(*drawn(n, reference or 0.0, seed + 1))
    leaks = Leaks(original=placed(*drawn(n, original, seed))[0], model=of_model, control=control)
    both = Placements(model=holdout, control=None if reference is None else beside, units=range(n))
    return differ(leaks, both, resamples(range(n), None, seed=0), 0.15)


def test_the_mean_placement_is_the_auc_and_its_spread_that_of_both_sides() -> None:
    members, others = drawn(150, 1.0, others=90)
    rows, beside = placed(members, others)
    assert rows.mean() == pytest.approx(auc(-members, -others), abs=1e-12)  # of losses
    leaks = Leaks(original=rows, model=rows, control=rows)
    units = Placements(model=beside, control=None, units=range(90))
    found = differ(leaks, units, resamples(range(150), None, seed=0), 0.15)
    delong = rows.var() / 150 + beside.var() / 90
    assert found.variance[0] == pytest.approx(delong, rel=0.15)
    assert found.variance[0] > 1.3 * rows.var() / 150


def test_an_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    true = float(norm.cdf(0.8 / np.sqrt(2))) - 0.5
    held = 0
    for seed in range(200):
        low, high = membership(120, 0.8, seed=10 * seed).interval or (0.0, 0.0)
        held += low <= true <= high
    assert 0.90 <= held / 200 <= 0.99


@pytest.mark.parametrize("sign", [1, -1], ids=["membership", "over-forgotten"])
def test_both_sides_fail_with_few_rows_and_none_passes(sign: int) -> None:
    far, near = membership(96, 1.5 * sign), membership(96, 0.0)
    assert judge({"mia": far}, MEMBERSHIP)["mia"].outcome is FAIL
    judged = judge({"mia": near}, MEMBERSHIP)["mia"]
    assert judged.outcome is UNINFORMATIVE
    assert str(ENOUGH_ROWS) in judged.note


def test_it_passes_from_enough_rows_on() -> None:
    assert judge({"mia": membership(400, 0.0)}, MEMBERSHIP)["mia"].outcome is PASS
    between = judge({"mia": membership(400, 0.5)}, MEMBERSHIP)["mia"]
    assert between.outcome is INCONCLUSIVE


def test_the_reference_and_not_chance_is_the_control_where_there_is_one() -> None:
    same = membership(400, 1.0, reference=1.0)
    assert same.value == pytest.approx(0.0, abs=0.08)
    assert judge({"mia": same}, MEMBERSHIP)["mia"].outcome is PASS
    assert judge({"mia": membership(400, 1.0)}, MEMBERSHIP)["mia"].outcome is FAIL


def test_an_original_that_shows_nothing_makes_it_uninformative() -> None:
    judged = judge({"mia": membership(400, 0.0, original=0.0)}, MEMBERSHIP)["mia"]
    assert judged.outcome is UNINFORMATIVE


def damages(n: int, share: float) -> dict[str, float]:
    return {f"r{i}": float(i < round(share * n)) for i in range(n)}


@pytest.mark.parametrize(
    ("attacked", "clean", "outcome"),
    [(0.5, 0.1, FAIL), (0.1, 0.1, PASS), (0.0, 0.4, PASS), (0.14, 0.1, INCONCLUSIVE)],
)
def test_a_cost_is_what_the_attack_adds_to_the_clean_request(
    attacked: float, clean: float, outcome: Outcome
) -> None:
    found = cost(damages(100, attacked), damages(100, clean), 0, 0.05, 2000)
    judged = judge({"sa": found}, Rules(costs=frozenset({"sa"})))["sa"]
    assert judged.outcome is outcome
    assert found.value == pytest.approx(max(0.0, attacked - clean))


def test_a_cost_nobody_measured_says_nothing() -> None:
    judged = judge({"sa": cost({}, {}, 0, 0.05, 50)}, Rules(costs=frozenset({"sa"})))["sa"]
    assert judged.outcome is UNINFORMATIVE


def test_what_is_only_reported_takes_no_share_of_the_error_level() -> None:
    weak = membership(96, 0.85)
    assert 0.05 / 6 < (weak.p or 0) <= 0.05
    crowd = {f"other{i}": membership(96, 0.0) for i in range(5)}
    names = frozenset({"mia", *crowd})
    deciding = judge({"mia": weak, **crowd}, Rules(differences=names))
    reported = judge({"mia": weak, **crowd}, Rules(differences=names, reported=frozenset({"mia"})))
    assert deciding["mia"].outcome is not FAIL
    assert reported["mia"].outcome is FAIL
