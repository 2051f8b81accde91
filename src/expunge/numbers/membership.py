"""Telling rows a model was trained on from rows it never saw: scores, curves, closeness.

Every score is signed so that low means member. Definition (f scores of rows to forget, h of
hold-out rows):
    AUC         P(h > f) + P(h = f) / 2       1: every forget row looks like a member, .5: alike
    TPR at a    largest share of f below a threshold that at most the share a of h lies below
    s           1 - |AUC - AUC_r| / max(AUC_r, 1 - AUC_r)        AUC_r of the retrained model
    A           1 - AUC = P(hold-out looks more like a member)   the orientation of MUSE

Reference: The meaning and use of the area under a receiver operating characteristic (ROC) curve
(1982); Membership Inference Attacks From First Principles (2022) for TPR at a low FPR.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from expunge.core.bootstrap import FloatArray
from expunge.core.results import Value
from expunge.core.scores import aligned, asked, matched, unmeasurable

READY = "score"
"""Reading that holds ready scores, as published logs do; it goes before all others."""

HOLDOUT = "holdout"

RATES = {"tpr_at_1_percent": 0.01, "tpr_at_0.1_percent": 0.001}
"""Part -> false positive rate."""

SMALLEST = 1e-10
"""Stands for a zero in a denominator."""


class Sides(NamedTuple):
    """Scores of one model, low for members.

    Attributes:
        forget: Row id -> score, of the rows to forget.
        holdout: The same, of rows no model saw.
        lacking: What is missing or not sound; empty where both sides have scores.
        note: What a reader must know.
    """

    forget: dict[str, float]
    holdout: dict[str, float]
    lacking: str = ""
    note: str = ""


def auc(members: FloatArray, others: FloatArray) -> float:
    """Probability that a non-member has the higher score; ties count one half.

    Args:
        members: Scores [n] of rows to forget.
        others: Scores [m] of hold-out rows.

    Returns:
        A number in [0, 1]: 1 where every member lies below every non-member.

    Raises:
        ValueError: When one side is empty.

    Example:
        >>> auc(np.array([0.1, 0.2, 0.9]), np.array([0.5, 1.0, 1.2]))
        0.8888888888888888
    """
    if not len(members) or not len(others):
        raise ValueError("an AUC needs scores on both sides")
    ordered = np.sort(members)
    below = int(np.searchsorted(ordered, others, "left").sum())
    up_to = int(np.searchsorted(ordered, others, "right").sum())
    return (below + up_to) / (2 * len(members) * len(others))


def tpr_at(rate: float, members: FloatArray, others: FloatArray) -> float:
    """Share of members found while at most ``rate`` of the non-members are accused.

    Args:
        rate: Largest false positive rate, below 1.
        members: Scores [n] of rows to forget.
        others: Scores [m] of hold-out rows.

    Returns:
        The true positive rate of the best threshold, no interpolation; ties accuse both sides.
    """
    accused = math.floor(rate * len(others) + 1e-9)
    threshold = np.partition(others, accused)[accused]
    return float((members < threshold).mean())


def enough_for(rate: float) -> int:
    """Hold-out rows below which a false positive rate cannot be told from 0."""
    return math.ceil(1 / rate - 1e-9)


def privacy_score(auc: float, reference: float) -> float:
    """How close an AUC is to the retrained model's: 1 equal, 0 as far away as possible."""
    return 1 - abs(auc - reference) / max(reference, 1 - reference)


def relative_score(auc: float, reference: float) -> float:
    """The same, relative to the retrained model's AUC and cut at 0."""
    return max(0.0, 1 - abs(auc - reference) / max(reference, SMALLEST))


def ratio_score(auc: float, reference: float) -> float:
    """The same, as the smaller of the two over the larger."""
    return min(auc, reference) / max(auc, reference, SMALLEST)


def privacy_leakage(auc: float, reference: float) -> float:
    """PrivLeak, in percent, from two AUCs (1 memorised).

    Returns:
        ``100 (A - A_r) / (A_r + 1e-10)`` with ``A = 1 - AUC``; NaN where A_r is 0, because then
        nothing can be said relative to it.
    """
    own, expected = 1 - auc, 1 - reference
    return 100 * (own - expected) / (expected + SMALLEST) if expected else math.nan


def min_k(token_scores: Sequence[float], k: float) -> float:
    """Minus the mean of the lowest share ``k`` of the token scores, at least one of them.

    Example:
        >>> round(min_k(np.log([0.9, 0.5, 0.1, 0.01, 0.8]), 0.4), 10)
        3.4538776395
    """
    lowest = max(1, int(len(token_scores) * k))
    tokens = np.sort(np.asarray(token_scores, dtype=float))
    # NaN sorts last, where it would be left out of the mean as if it were likely.
    return math.nan if np.isnan(tokens[-1]) else -float(tokens[:lowest].mean())


def mean_nll(token_logp: Sequence[float]) -> float:
    """Mean negative log-likelihood of some tokens, in nats."""
    return -float(np.mean(token_logp))


def quotient(numerator: float, denominator: float) -> float:
    """A ratio of two negative log-likelihoods, finite where the model is certain of a text."""
    return numerator / max(denominator, SMALLEST)


def attacked(
    scores: Mapping[str, Any],
    reference: Mapping[str, Any] | None,
    needs: Sequence[str],
    score: Callable[..., float],
    *,
    allow_unmatched: bool = False,
) -> Value:
    """One attack's AUC, its parts, and all scores it is made of.

    Args:
        scores: The needs, each also for the role ``holdout``; or ready scores, see `READY`.
        reference: The same of the retrained model, where there is one.
        needs: Readings of one row that the score is made of.
        score: Their values -> the score of the row, low for members.
        allow_unmatched: Compare with a reference that was measured on other rows.

    Returns:
        The AUC; `RATES` that the number of hold-out rows allows, and with a reference ``s`` and
        ``auc_reference`` among the parts.

    Raises:
        ExpungeError: E-DATA-013 when the reference was measured on other rows.
    """
    own = sides(scores, needs, score)
    if own.lacking:
        return unmeasurable(own.lacking)
    beside = {HOLDOUT: own.holdout}
    notes = [own.note]
    if reference is None:
        notes.append(".5 is the aim only if hold-out and forget rows are alike: no reference given")
    else:
        expected = sides(reference, needs, score)
        if expected.lacking:
            notes.append(f"no s: of the reference, {expected.lacking}")
        else:
            match_sides(own, expected, allow_unmatched=allow_unmatched)
            beside |= {"reference": expected.forget, "reference_holdout": expected.holdout}
    arrays = {name: array_of(table) for name, table in beside.items()}
    found = numbers(array_of(own.forget), arrays)
    parts, told = _resolved(found, len(own.holdout))
    note = "; ".join(filter(None, (*notes, told)))
    return Value(mean=found["mean"], per_row=own.forget, beside=beside, parts=parts, note=note)


def numbers(rows: FloatArray, beside: Mapping[str, FloatArray]) -> dict[str, float]:
    """AUC and its parts from scores: what the ``aggregate`` of every attack is.

    Args:
        rows: Scores [n] of forget rows.
        beside: ``holdout`` [m]; ``reference`` and ``reference_holdout`` where there is one.
    """
    holdout = beside[HOLDOUT]
    found = {"mean": auc(rows, holdout)}
    found |= {name: tpr_at(rate, rows, holdout) for name, rate in RATES.items()}
    if "reference" in beside:
        expected = auc(beside["reference"], beside["reference_holdout"])
        found |= {"s": privacy_score(found["mean"], expected), "auc_reference": expected}
    return found


def sides(scores: Mapping[str, Any], needs: Sequence[str], score: Callable[..., float]) -> Sides:
    """Scores of the rows to forget and of the hold-out rows.

    Args:
        scores: The readings of one model.
        needs: Which of them enter the score.
        score: Their values -> the score of one row.
    """
    if READY in scores:
        needs, score = (READY,), float
    beside = [of_role(HOLDOUT, name) for name in needs]
    forget, holdout = (
        {row: score(*values) for row, values in aligned(scores, *names).items()}
        for names in (needs, beside)
    )
    notes = []
    for names, side in ((needs, forget), (beside, holdout)):
        if not side:
            return Sides({}, {}, lacking=f"no row has {' and '.join(names)}")
        broken = [row for row, value in side.items() if not math.isfinite(value)]
        if broken:
            why = f"the score of {len(broken)} of {len(side)} rows is not a number ({broken[0]})"
            return Sides({}, {}, lacking=why)
        total = max(len(asked(scores, name)) for name in names)
        if total > len(side):
            notes.append(f"{total - len(side)} of {total} rows have no {' and '.join(names)}")
    return Sides(forget, holdout, note="; ".join(notes))


def match_sides(own: Sides, expected: Sides, *, allow_unmatched: bool) -> None:
    """Check that model and reference were measured on the same rows, on both sides.

    Raises:
        ExpungeError: E-DATA-013 when they were not and that is not allowed.
    """
    matched(own.forget, expected.forget, allow_unmatched=allow_unmatched)
    matched(own.holdout, expected.holdout, allow_unmatched=allow_unmatched)


def of_role(role: str, name: str) -> str:
    """A need of the rows of another role.

    Example:
        >>> of_role("holdout", "base:training_logp")
        'base:holdout.training_logp'
    """
    who, colon, reading = name.rpartition(":")
    return f"{who}{colon}{role}.{reading}"


def array_of(table: Mapping[str, float]) -> FloatArray:
    """The values [n] of a table, in its order."""
    return np.array(list(table.values()), dtype=np.float64)


def _resolved(found: Mapping[str, float], holdout: int) -> tuple[dict[str, float], str]:
    """The parts that so many hold-out rows allow, and a note on the others."""
    coarse = {name: rate for name, rate in RATES.items() if holdout < enough_for(rate)}
    parts = {n: value for n, value in found.items() if n != "mean" and n not in coarse}
    told = [
        f"TPR at {rate:.1%} FPR is not measurable: {holdout} hold-out rows, "
        f"and it takes {enough_for(rate)}"
        for rate in coarse.values()
    ]
    return parts, "; ".join(told)
