"""REMIND: whether the loss around forgotten rows is flatter than around rows never seen.

Definition (x a row; variants x' in which each token gave way, with probability p, to its j-th
nearest neighbour by cosine of the embedding; L the model's mean negative log-likelihood, nats):
    slope(p, j)   = mean_x' |L(x') - L(x)| / d_emb(x, x')
    sharpness(x)  = mean over p and j of log slope(p, j)
    score         = P(sharpness of a hold-out row > sharpness of a forget row), ties one half,
                    over the pairs of like length and like L(x)

Meaning: .5 when nothing tells forgotten rows from rows that were never seen. Above it the forgotten
rows lie on a plateau, which is what pushing their loss up leaves behind; below it they are sharper,
which is what knowing them looks like. A retrained model has .5 if the hold-out rows are like the
forget rows. ``auc`` is the number over all pairs and ``loss_auc`` what the loss alone tells: where
the losses do not overlap there are no like pairs, and the loss attack has already found the rows.

Example:
    Two rows of equal length and loss: the hold-out row is sharper, whatever the scale of the slope.

    >>> from expunge.testing import measure
    >>> def around(slope, loss=1.0):
    ...     return [{"loss": loss, "tokens": 10, "cells": {"0.05/1": {"slope": slope}}}]
    >>> measure("remind", {"landscape": around(2.0), "holdout.landscape": around(3.0)}).mean
    1.0
    >>> measure("remind", {"landscape": around(2.0), "holdout.landscape": around(3.0, 9.0)}).note
    'not measurable: no forget row has a hold-out row of like length and loss (AUC of the loss 1)'

Reference: REMIND: Input Loss Landscapes Reveal Residual Memorization in Post-Unlearning LLMs
(2025); published as REMIND: Memorization and Unlearning in LLMs Through the Lens of Input Loss
Landscapes (2026).

Departs from the paper: its text was not at hand, only two abstracts and a review. INFERRED: K, p
and j; the logistic regression; that sharpness is the mean logarithm of the slopes, so that every
cell weighs alike and a row's sharpness does not depend on other rows; that x'- goes to the token
nearest to the mirrored embedding; that d is taken between mean embeddings; that the completion of a
row (all of a running text) is what varies, at least one token of it; and what counts as like.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import average, table, unmeasurable

if TYPE_CHECKING:
    from expunge.core.bootstrap import FloatArray
    from expunge.data.encode import Encoded
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "remind",
    "kind": "metric",
    "summary": "Whether the loss around forgotten rows is flatter than around rows never seen.",
    "paper": "REMIND: Input Loss Landscapes Reveal Residual Memorization in Post-Unlearning LLMs "
    "(2025)",
    "needs": ["landscape", "holdout.landscape"],
    "models_if_given": ["base", "original"],
    "roles": ["holdout"],
    "better": "target",
    "target": 0.5,
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "181 forward passes a row, retain rows included; fewer where variants coincide",
    "maturity": "paper",
    "version": 1,
}

FLAT = 1e-12
"""Least slope that is told from none, nats a token and unit of the embedding."""

FEATURES = ("mean", "std", "range", "change", "slope", "curvature")
"""What the three states are told apart by, in each cell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which neighbourhood, and which rows are alike."""

    pairs: int = param(10, help="opposite pairs of variants in each cell: K = 20 variants", low=1)
    shares: tuple[float, ...] = param(
        (0.05, 0.1, 0.2), help="probabilities with which a token gives way", low=0.0, high=1.0
    )
    ranks: tuple[int, ...] = param((1, 3, 5), help="which neighbours take its place", low=1)
    like_length: float = param(
        1.5, help="rows are alike up to this ratio of their numbers of tokens", low=1.0
    )
    like_loss: float = param(0.5, help="and up to this difference of their losses, nats", low=0.0)
    seed: int = param(0, help="decides which tokens give way")


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, Any]]:
    """The loss around the rows, around hold-out rows and, where they are given, retain rows.

    Neighbours are those of the base model's embedding, or the original's, so that what is looked
    at does not depend on the model that is looked at; without both, the model's own.
    """
    from expunge.lm.landscape import landscapes, losses_of
    from expunge.lm.neighbours import neighbours_of
    from expunge.lm.samples import check_same_tokens

    source = models.base or models.original or models.model
    check_same_tokens(models.model, source)
    roles = {name: rows[name] for name in ("", "holdout", "retain") if name in rows}
    items: dict[str, dict[str, Encoded]] = {
        role: {row.id: models.model.encoder.encode(row.training) for row in of}
        for role, of in roles.items()
    }
    everything = [item for of in items.values() for item in of.values()]
    neighbours = neighbours_of(source, everything, params.ranks)
    return {
        f"{role}.landscape".lstrip("."): landscapes(
            losses_of(models.model),
            of,
            neighbours,
            shares=params.shares,
            ranks=params.ranks,
            pairs=params.pairs,
            seed=params.seed,
        )
        for role, of in items.items()
    }


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """How well flatness tells forget rows from hold-out rows.

    Args:
        scores: ``landscape`` and ``holdout.landscape``, and ``retain.landscape`` where there is
            one: for each row its ``loss``, ``tokens`` and ``cells``.
        params: Which rows are alike.
        reference: Not used.

    Returns:
        The score in [0, 1]; ``per_row`` are the sharpnesses. ``parts``: ``auc`` over all pairs,
        ``loss_auc`` of the loss alone, ``like_pairs`` the share of pairs that are alike, and with
        retain rows ``three_states``: the mean AUC of one state against the others for a logistic
        regression on rows it did not see.
    """
    forget, holdout = table(scores, "landscape"), table(scores, "holdout.landscape")
    if not forget or not holdout:
        return unmeasurable(f"no {'hold-out' if forget else 'forget'} row has a landscape")
    sharp = {row: sharpness(found) for row, found in forget.items()}
    value = average(sharp, scores, "landscape")
    if value.mean is None:
        return value
    beside = _beside(forget, "") | _beside(holdout, "holdout_")
    beside["holdout"] = {row: sharpness(found) for row, found in holdout.items()}
    for name, of in beside.items():
        if broken := [row for row, number in of.items() if not math.isfinite(number)]:
            return unmeasurable(f"the {name} of {len(broken)} rows is not a number ({broken[0]})")
    found = _numbers(value, beside, params)
    if math.isnan(found["mean"]):
        return unmeasurable(
            "no forget row has a hold-out row of like length and loss "
            f"(AUC of the loss {found['loss_auc']:.3g})"
        )
    states = three_states(table(scores, "retain.landscape"), forget, holdout)
    parts = {name: number for name, number in found.items() if name != "mean"}
    parts |= {} if states is None else {"three_states": states}
    return replace(value, mean=found["mean"], beside=beside, parts=parts)


def sharpness(landscape: Mapping[str, Any]) -> float:
    """Mean logarithm of the slopes over all cells."""
    return fmean(math.log(max(cell["slope"], FLAT)) for cell in landscape["cells"].values())


def aggregate(
    rows: "FloatArray", beside: Mapping[str, "FloatArray"], params: Params
) -> dict[str, float]:
    """The score from sharpness, loss and length of forget and hold-out rows."""
    import numpy as np

    from expunge.numbers.membership import auc

    lengths, losses = np.log(beside["tokens"]), beside["loss"]
    other_lengths, other_losses = np.log(beside["holdout_tokens"]), beside["holdout_loss"]
    is_like = (
        np.abs(lengths[:, None] - other_lengths[None]) <= math.log(params.like_length) + 1e-12
    ) & (np.abs(losses[:, None] - other_losses[None]) <= params.like_loss)
    above = np.sign(beside["holdout"][None] - rows[:, None]) / 2 + 0.5
    return {
        "mean": float(above[is_like].mean()) if is_like.any() else math.nan,
        "auc": auc(rows, beside["holdout"]),
        "loss_auc": auc(losses, other_losses),
        "like_pairs": float(is_like.mean()),
    }


def three_states(*landscapes: Mapping[str, Mapping[str, Any]]) -> float | None:
    """How well retained, forgotten and unseen rows are told apart by all features together.

    Args:
        *landscapes: Row id -> landscape, of the rows of each state.

    Returns:
        Mean AUC of one state against the others, .5 for a guess; None where a state has too few
        rows.
    """
    import numpy as np

    from expunge.numbers.classify import multiclass_auc

    if not all(landscapes):
        return None
    features = [_features(of[row]) for of in landscapes for row in sorted(of)]
    states = [state for state, of in enumerate(landscapes) for _ in of]
    return multiclass_auc(np.array(features), states)


def _features(landscape: Mapping[str, Any]) -> list[float]:
    cells = [landscape["cells"][name] for name in sorted(landscape["cells"])]
    return [float(cell[name]) for cell in cells for name in FEATURES if name in cell]


def _beside(
    landscapes: Mapping[str, Mapping[str, Any]], prefix: str
) -> dict[str, dict[str, float]]:
    return {
        f"{prefix}{name}": {row: float(found[name]) for row, found in landscapes.items()}
        for name in ("loss", "tokens")
    }


def _numbers(
    value: Value, beside: Mapping[str, Mapping[str, float]], params: Params
) -> dict[str, float]:
    import numpy as np

    arrays = {name: np.array(list(of.values())) for name, of in beside.items()}
    return aggregate(np.array(list(value.per_row.values())), arrays, params)
