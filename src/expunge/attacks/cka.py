"""CKA: do the representations of the rows still differ from those of a retrained model?

Definition (u, o, r: states of the attacked model, the original and the retrained reference, one row
a token that predicts the fact, taken after block l and before the final norm):
    CKA(x, y) = ||Xc' Yc||_F^2 / (||Xc' Xc||_F ||Yc' Yc||_F)        Xc, Yc: column means taken out
    e_l    = clip( (CKA(u, r) - CKA(o, r)) / (1 - CKA(o, r)), 0, 1 )
    leak_i = 1 - sum_l w_l e_l / sum_l w_l          w_l = max(1 - CKA(o, r), 0), rows of i's fold

    1: as far from the reference as the original is; 0: indistinguishable from it. It never decides
    a verdict: a model retrained once more may be as far away as the original, since many shapes
    serve one behaviour.

Reference: Measuring the Depth of LLM Unlearning via Activation Patching, 2026 (as a baseline);
Similarity of Neural Network Representations Revisited, 2019.

Departs from the paper: CKA compares clouds of points and has no value of a row, so the rows are
dealt into disjoint folds in the order of a hash of their ids, and each row takes the value of its
fold; with too few tokens there is one fold, all rows have one value, and their interval has no
width. Fewer tokens than 4 for each dimension take the debiased estimate, without which any two
clouds look alike. The number of tokens a fold needs is INFERRED.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Effort, Leak
from expunge.core.rng import derive, generator
from expunge.lm.arch import Slots
from expunge.lm.legible import left_out
from expunge.lm.representations import activations
from expunge.lm.siblings import shared_places
from expunge.lm.subject import Scene, Subject
from expunge.numbers.erasure import by_weight, clipped
from expunge.numbers.geometry import cka, debiased_cka
from expunge.requests.rows import Row

CARD = {
    "id": "cka",
    "kind": "attack",
    "summary": "Compare the shape of the model's representations with a retrained model's.",
    "paper": "Measuring the Depth of LLM Unlearning via Activation Patching (2026)",
    "needs": ["forget", "original", "reference"],
    "access": "activations",
    "cost": "one forward pass a row on three models",
    "maturity": "paper",
    "version": 1,
    "family": "read-out",
    "level": "W",
    "threshold": 0.20,
    "decides": False,
}

ENOUGH = 4.0
"""Tokens for each dimension from which on the plain estimate is sound."""

NOTHING = 1e-8
"""A weight at most this is rounding."""

Clouds = Mapping[int, Mapping[str, FloatArray]]
"""Block -> row id -> [n, d]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Where to look, and how finely."""

    layers: tuple[int, ...] | None = param(
        None, help="blocks to compare, negative from the top; none means all"
    )
    tokens: str = param(
        "value",
        help="value: the tokens that carry the fact; answer: all tokens of the answer",
        paper="value",
        choices=("value", "answer"),
    )
    estimator: str = param(
        "auto",
        help="plain, debiased, or auto: debiased with fewer than 4 tokens for each dimension",
        paper="plain",
        choices=("auto", "plain", "debiased"),
    )
    paired: bool = param(
        True, help="compare each token with itself; else with a token drawn from the fold"
    )
    folds: int = param(8, help="folds of rows, at most", paper=1, low=1, high=1000)
    fold_tokens: int = param(64, help="tokens of a fold, at least, unless there is one", low=4)


def mount(subject: Subject, rows: Sequence[Row], scene: Scene, params: Params) -> Leak:
    """One minus the erasure of each row's fold."""
    others = {"original": scene.original, "reference": scene.reference}
    places, note = shared_places(subject, others, rows, params.tokens)
    if not places or scene.original is None or scene.reference is None:
        return Leak(per_row={}, note=note)
    slots = Slots(subject.model)
    blocks = [slots.index(layer) for layer in params.layers or range(len(slots))]
    models = (subject, scene.original, scene.reference)
    clouds = [activations(model, places, blocks) for model in models]
    folds = _dealt({row: len(spot.at) for row, spot in places.items()}, params, scene.seed)
    likeness = np.array([_likeness(clouds, blocks, fold, params, scene.seed) for fold in folds])
    left, weights = _left(*likeness.transpose(2, 0, 1))
    per_row = {
        row: clipped(by_weight(left[at], weights[at]))
        for at, fold in enumerate(folds)
        for row in fold
        if weights[at].any()
    }
    same = left_out(len(places), len(per_row), "have the same states in original and reference")
    return Leak(
        per_row={row.id: per_row[row.id] for row in rows if row.id in per_row},
        layers={
            block: float(left[weights[:, at] > 0, at].mean())
            for at, block in enumerate(blocks)
            if weights[:, at].any()
        },
        parts={"folds": float(len(folds))},
        note="; ".join(filter(None, (note, same))),
    )


def effort(params: Params, rows: int, wordings: int) -> Effort:
    """States of three models."""
    return Effort(forwards=3 * rows)


def _dealt(counts: Mapping[str, int], params: Params, seed: int) -> list[list[str]]:
    """Rows in folds of some `fold_tokens` or more; what a row says has no part in its fold."""
    number = max(1, min(params.folds, sum(counts.values()) // params.fold_tokens))
    order = sorted(counts, key=lambda row: derive(seed, "cka", row))
    return [order[at::number] for at in range(min(number, len(order)))]


def _likeness(
    clouds: Sequence[Clouds], blocks: Sequence[int], fold: Sequence[str], params: Params, seed: int
) -> list[tuple[float, float]]:
    """CKA(u, r) and CKA(o, r) at each block [L, 2], over the tokens of a fold; NaN without any."""
    found = []
    for block in blocks:
        u, o, r = (np.concatenate([cloud[block][row] for row in fold]) for cloud in clouds)
        if not params.paired:
            r = r[generator(seed, "cka", "pairs").permutation(len(r))]
        few = params.estimator == "auto" and len(r) < ENOUGH * r.shape[1]
        measure = debiased_cka if few or params.estimator == "debiased" else cka
        found.append((measure(u, r), measure(o, r)))
    return found


def _left(now: FloatArray, start: FloatArray) -> tuple[FloatArray, FloatArray]:
    """1 - e_l and w_l from CKA(u, r) and CKA(o, r), of any shape; no weight where one is NaN."""
    known = np.isfinite(now) & np.isfinite(start) & (1.0 - start > NOTHING)
    weights = np.where(known, 1.0 - start, 0.0)
    gained = np.where(known, now - start, 0.0) / np.where(known, weights, 1.0)
    return 1.0 - np.clip(gained, 0.0, 1.0), weights
