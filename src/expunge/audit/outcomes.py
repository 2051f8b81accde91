"""From recoveries to outcomes: of each attack, of each family, and in one number.

The order of an attack's outcome (first match): *uninformative* when the original leads the control
by less than .10; *fail* when the lower bound lies above the gate, Holm-corrected over all attacks
of the audit; *uninformative* for want of power when even a model exactly like the control would
not pass; *pass* when the upper bound lies at or below the gate; *inconclusive* otherwise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from expunge.audit.deciding import decision_points, rows_to_decide
from expunge.audit.differences import ENOUGH_ROWS
from expunge.audit.statistics import GAP, LEVEL, UNDEFINED, FloatArray, Recovery, holm
from expunge.core.results import Outcome

NEVER_DECIDED = ("compression", "perturbation")
"""Families that never decided a model of known state: their pass is no finding, not a proof."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What one attack says.

    Attributes:
        outcome: One of the four words.
        note: Why, where the word alone does not say it.
        would_pass_at: Observed XR at which it would just pass, or None.
        would_fail_at: Observed XR at which it would just fail, or None.
        rows_to_decide: Forget rows with which it would decide, or None.
    """

    outcome: Outcome
    note: str = ""
    would_pass_at: float | None = None
    would_fail_at: float | None = None
    rows_to_decide: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """By which rules the attacks of an audit are judged.

    Attributes:
        invalid: Attack -> the rule it broke, for attacks whose result does not count.
        differences: Attacks whose gate looks at a difference of membership.
        costs: Attacks whose gate looks at a cost.
        reported: Attacks that decide nothing; each is tested as if it were alone.
    """

    invalid: Mapping[str, str] = field(default_factory=dict)
    differences: frozenset[str] = frozenset()
    costs: frozenset[str] = frozenset()
    reported: frozenset[str] = frozenset()


def judge(recoveries: Mapping[str, Recovery], rules: Rules | None = None) -> dict[str, Judged]:
    """The outcome of every attack of one audit.

    Args:
        recoveries: Attack -> its excess recovery, or the difference its gate looks at.
        rules: What holds for some of them.

    Returns:
        Attack -> what it says, in the order given.
    """
    rules = rules or Rules()
    p_values = {
        name: recovery.p
        for name, recovery in recoveries.items()
        if recovery.p is not None and name not in rules.invalid and recovery.dropped <= UNDEFINED
    }
    alone = {name: p for name, p in p_values.items() if name in rules.reported}
    together = {name: p for name, p in p_values.items() if name not in rules.reported}
    fails = holm(together) | {name: p <= LEVEL for name, p in alone.items()}

    def outcome(name: str, recovery: Recovery) -> Judged:
        if name in rules.invalid:
            return Judged(outcome=Outcome.INCONCLUSIVE, note=rules.invalid[name])
        if name in rules.differences | rules.costs:
            membership = name in rules.differences
            return _judge_difference(recovery, fails.get(name, False), membership=membership)
        tests = 1 if name in rules.reported else len(together)
        return _judge_one(recovery, fails.get(name, False), tests)

    return {name: outcome(name, recovery) for name, recovery in recoveries.items()}


def _judge_difference(recovery: Recovery, fails: bool, *, membership: bool) -> Judged:
    """Order: uninformative (no row, no gap), fail, too few rows to pass, pass, inconclusive."""
    if recovery.value is None or recovery.upper is None:
        return Judged(outcome=Outcome.UNINFORMATIVE, note="no row could be tested")
    if membership and abs(recovery.gap) < GAP and not fails:
        return Judged(outcome=Outcome.UNINFORMATIVE, note=_no_gap(recovery))
    if fails:
        return Judged(outcome=Outcome.FAIL)
    if membership and recovery.n < ENOUGH_ROWS:
        few = f"{recovery.n} rows a side: it could fail, and passes from {ENOUGH_ROWS} on"
        return Judged(outcome=Outcome.UNINFORMATIVE, note=few, rows_to_decide=ENOUGH_ROWS)
    passes = recovery.upper <= recovery.threshold
    return Judged(outcome=Outcome.PASS if passes else Outcome.INCONCLUSIVE)


def _judge_one(recovery: Recovery, fails: bool, tests: int) -> Judged:
    if recovery.original < GAP:
        return Judged(outcome=Outcome.UNINFORMATIVE, note=_nothing_to_recover(recovery))
    if recovery.n == 0:
        return Judged(outcome=Outcome.UNINFORMATIVE, note="no row could be tested")
    if recovery.value is None or recovery.upper is None:
        return Judged(outcome=Outcome.UNINFORMATIVE, note=_no_gap(recovery))
    if recovery.dropped > UNDEFINED:
        share = f"{recovery.dropped:.0%} of the replicates have no defined recovery"
        return Judged(outcome=Outcome.INCONCLUSIVE, note=share)
    pass_at, fail_at = decision_points(recovery, tests)
    if fails:
        return Judged(outcome=Outcome.FAIL, would_pass_at=pass_at, would_fail_at=fail_at)
    undecided = rows_to_decide(recovery, tests)
    if not recovery.has_power:
        outcome, note = Outcome.UNINFORMATIVE, _no_power(recovery)
    elif recovery.upper <= recovery.threshold:
        outcome, note, undecided = Outcome.PASS, "", None
    else:
        outcome, note = Outcome.INCONCLUSIVE, ""
    return Judged(
        outcome=outcome,
        note=note,
        would_pass_at=pass_at,
        would_fail_at=fail_at,
        rows_to_decide=undecided,
    )


def _no_gap(recovery: Recovery) -> str:
    if np.isnan(recovery.gap):
        return "original and control were not both tested"
    return f"the original leads the control by {recovery.gap:.2f} only, {GAP:.2f} is needed"


def _nothing_to_recover(recovery: Recovery) -> str:
    return f"the original itself gives away {recovery.original:.2f} only, {GAP:.2f} is needed"


def _no_power(recovery: Recovery) -> str:
    bound = max(recovery.at_zero or (0.0,))
    return (
        f"no power: with {recovery.n} rows the upper bound would be {bound:.2f} "
        "even for a model exactly like the control"
    )


def family_outcome(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of a family from those of its attacks; a family without any is inconclusive."""
    seen = set(outcomes)
    if Outcome.FAIL in seen:
        return Outcome.FAIL
    if Outcome.INCONCLUSIVE in seen or not seen:
        return Outcome.INCONCLUSIVE
    return Outcome.PASS if Outcome.PASS in seen else Outcome.UNINFORMATIVE


@dataclass(frozen=True, kw_only=True, slots=True)
class Erasure:
    """One number for the audit, and the breadth that a minimum hides.

    Attributes:
        score: Smallest share of unrecovered knowledge over families, times utility; in [0, 1].
        interval: 95% interval of `score`.
        breadth: Mean over families instead of the smallest.
    """

    score: float | None
    interval: tuple[float, float] | None
    breadth: float | None


def erasure(
    recoveries: Mapping[str, Recovery],
    families: Mapping[str, str],
    utility: float,
    utility_replicates: FloatArray,
) -> Erasure:
    """The erasure score.

    Definition:
        score = min over families f of S_f x U,  S_f = min over informative attacks in f of (1 - XR)

    Args:
        recoveries: Attack -> its excess recovery, all from the same resamples.
        families: Attack -> its family.
        utility: U.
        utility_replicates: [B] replicates of U, drawn from rows of their own.

    Returns:
        All None when no attack is informative.
    """
    told: dict[str, list[Recovery]] = {}
    for name, recovery in recoveries.items():
        if recovery.value is not None:
            told.setdefault(families[name], []).append(recovery)
    if not told:
        return Erasure(score=None, interval=None, breadth=None)
    kept = [min(1 - float(r.value or 0.0) for r in attacks) for attacks in told.values()]
    worst = np.fmax.reduce([r.clipped for attacks in told.values() for r in attacks])
    replicates = (1 - worst) * utility_replicates
    low, high = np.nanquantile(replicates, [0.025, 0.975])
    return Erasure(
        score=min(kept) * utility,
        interval=(float(low), float(high)),
        breadth=float(np.mean(kept)),
    )
