"""Membership: do the forgotten rows still stand out from rows the model never saw?

Definition (f_i score of an attacked row, h_j of a hold-out row of the same model, low for members):
    leak_i = mean over j /= i of  [ f_i < h_j ] + 1/2 [ f_i = h_j ]       placement of row i
    AUC    = mean over i of leak_i

    loss       nll(y)                            y the text trained on, its end left out
    zlib       nll(y) / bytes of zlib(y)
    min-k      -mean of the lowest share k of log p(y_t | y_<t)
    min-k++    the same of the standardised log-probabilities
    gradnorm   mean over weight tensors of |d nll(y) / dW|_2

    The gate is the distance of the AUC from the control's, on both sides: above it the rows are
    remembered; far below it forgetting overshot, and they stand out by being improbable. The
    placements of the hold-out rows stand beside, so that both sides can be resampled.

Reference: Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting, 2018.

Departs from the paper: all thresholds count instead of one. One score decides and the others are
reported, since the best of five would be drawn from noise. A hold-out row that is attacked itself
is not compared with itself. k is that of unlearning benchmarks. `gradnorm` takes the weights; no
other score looks beyond the log-probabilities.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from expunge.core.params import param
from expunge.core.results import Effort, Leak
from expunge.lm.legible import left_out, legible
from expunge.lm.membership import gradient_norms, standardised, text_logp
from expunge.lm.subject import Scene, Subject
from expunge.numbers.membership import array_of, enough_for, mean_nll, min_k, tpr_at
from expunge.requests.rows import Row, Turn

CARD = {
    "id": "mia",
    "kind": "attack",
    "summary": "Tell forgotten rows from rows never seen by how probable the model finds them.",
    "paper": "Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting (2018)",
    "needs": ["forget", "holdout"],
    "access": "logits",
    "cost": "2 forward passes and 1 backward pass a row, forgotten and held out",
    "maturity": "paper",
    "version": 1,
    "family": "privacy",
    "level": "L",
    "threshold": 0.15,
    "statistic": "difference",
}

Table = Mapping[str, float]
"""Row id -> score or placement."""

LOW_RATE = 0.01
"""False positive rate at which members found are reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What is scored."""

    score: str = param(
        "loss",
        help="the score that decides; none looks at nothing and finds .5 everywhere",
        paper="loss",
        choices=("loss", "zlib", "min-k", "min-k++", "gradnorm", "none"),
    )
    beside: tuple[str, ...] = param(
        ("loss", "zlib", "min-k", "min-k++", "gradnorm"),
        help="scores whose AUC is reported",
        choices=("loss", "zlib", "min-k", "min-k++", "gradnorm"),
    )
    k: float = param(
        0.4, help="share of the least likely tokens in min-k and min-k++", paper=0.2, low=0, high=1
    )


def mount(subject: Subject, rows: Sequence[Row], scene: Scene, params: Params) -> Leak:
    """Place each row among the hold-out rows."""
    given = {row.id: row.training for row in (*rows, *scene.holdout)}
    turns = legible(subject, given)
    sides = [[row.id for row in side if row.id in turns] for side in (rows, scene.holdout)]
    if not all(sides):
        return Leak(per_row={}, note="no rows, or no hold-out rows to compare them with")
    compared = {
        name: [{row: scores[row] for row in side if row in scores} for side in sides]
        for name in dict.fromkeys((params.score, *params.beside))
        for scores in [_scores(subject, turns, name, params.k)]
    }
    members, others = compared[params.score]
    placed = _above(members, others)
    beside = {row: 1.0 - share for row, share in _above(others, members).items()}
    note = left_out(len(given), len({*members, *others}), "cannot be scored")
    return Leak(
        per_row=placed,
        beside={"holdout": beside},
        parts={
            **{f"auc_{_spelt(name)}": a for name in params.beside for a in _auc(*compared[name])},
            **_found_at_low_rate(members, others),
            "members": float(len(placed)),
            "nonmembers": float(len(beside)),
        },
        note=note,
    )


def effort(params: Params, rows: int, wordings: int) -> Effort:
    """The scores, with as many hold-out rows as attacked ones."""
    scores = {params.score, *params.beside}
    passes = bool(scores & {"loss", "zlib", "min-k"}) + ("min-k++" in scores)
    return Effort(forwards=2 * rows * passes, backwards=2 * rows * ("gradnorm" in scores))


def _scores(subject: Subject, turns: Mapping[str, Turn], name: str, k: float) -> Table:
    """Low for members; rows without a score, or one that is no number, are left out."""
    said = list(turns.values())
    found: Sequence[float | None]
    match name:
        case "loss":
            found = [mean_nll(logp) for logp in text_logp(subject, said)]
        case "zlib":
            sizes = [len(zlib.compress(turn.completion.encode())) for turn in said]
            logps = text_logp(subject, said)
            found = [mean_nll(logp) / size for logp, size in zip(logps, sizes, strict=True)]
        case "min-k":
            found = [min_k(logp, k) for logp in text_logp(subject, said)]
        case "min-k++":
            found = [min_k(scores, k) for scores in standardised(subject, said)]
        case "gradnorm":
            found = gradient_norms(subject, said)
        case _:
            found = [0.0] * len(said)
    pairs = zip(turns, found, strict=True)
    return {row: score for row, score in pairs if score is not None and not math.isnan(score)}


def _above(scores: Table, among: Table) -> dict[str, float]:
    """Share of other rows that lie above each row; ties count one half."""
    ordered = np.sort(array_of(among))
    values = array_of(scores)
    below = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return {
        row: (len(among) - twice / 2 - same / 2) / (len(among) - same)
        for row, twice in zip(scores, below.tolist(), strict=True)
        for same in [row in among]
        if len(among) > same
    }


def _auc(members: Table, others: Table) -> list[float]:
    placed = _above(members, others)
    return [fmean(placed.values())] if placed else []


def _found_at_low_rate(members: Table, others: Table) -> dict[str, float]:
    """Members found at a low false positive rate, where the hold-out rows can tell it from 0."""
    if not members or len(others) < enough_for(LOW_RATE):
        return {}
    return {"tpr_at_1": tpr_at(LOW_RATE, array_of(members), array_of(others))}


def _spelt(name: str) -> str:
    return name.replace("++", "_plus_plus").replace("-", "_")
