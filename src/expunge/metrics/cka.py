"""CKA erasure: are the representations of the rows those of the retrained model?

Definition (u, o, r: states of the unlearned, the original and the retrained model, one row a token
that predicts the fact, taken after block l and before the final norm):
    CKA(x, y) = ||Xc' Yc||_F^2 / (||Xc' Xc||_F ||Yc' Yc||_F)        Xc, Yc: column means taken out
    e_l = clip((CKA(u, r) - CKA(o, r)) / (1 - CKA(o, r)), 0, 1)
    score = sum_l w_l e_l / sum_l w_l                               w_l = max(1 - CKA(o, r), 0)

Meaning:
    0: as far from the retrained model as the original is; 1: indistinguishable from the retrained
    model, which itself has 1. A model whose last block alone was changed stays near 0 in every
    other layer. The values in `per_row` are those of layers, and the interval is over layers. A
    model in ruins gets 0 here, not 1. What fools it: it compares shapes, so a fact that moves a few
    tokens only barely shows; and with fewer tokens than 4 times the width the plain value is too
    large for any two models, which is why the debiased one takes its place there.

Reference: Measuring the Depth of LLM Unlearning via Activation Patching (2026), where this is a
baseline; Similarity of Neural Network Representations Revisited (2019).

Departs from the paper: the debiased estimate where there are fewer than 4 tokens for each dimension
(`estimator="plain"` is the paper's); it may lie a little beyond [0, 1] before it is clipped.

Example:
    >>> from expunge.testing import measure
    >>> layers = {"layer-0": 0.9, "layer-1": 0.6}    # CKA(u, r), of which CKA(o, r) were .8, .4
    >>> start = {"layer-0": 0.8, "layer-1": 0.4}
    >>> scores = {"cka": layers, "original:cka": start}
    >>> scores |= {"cka_debiased": layers, "original:cka_debiased": start}
    >>> scores |= {"tokens_per_dimension": {"layer-0": 9.0, "layer-1": 9.0}}
    >>> round(measure("cka", scores).mean, 6)        # (.2 * .5 + .6 * .333333) / .8
    0.375
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, unmeasurable
from expunge.numbers.erasure import by_weight, clipped, weighted

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

NEEDS = (
    "cka",
    "original:cka",
    "cka_debiased",
    "original:cka_debiased",
    "tokens_per_dimension",
)

CARD = {
    "id": "cka",
    "kind": "metric",
    "summary": "How far the representations have moved to those of the retrained model.",
    "paper": "Measuring the Depth of LLM Unlearning via Activation Patching (2026)",
    "needs": [
        "cka",
        "original:cka",
        "cka_debiased",
        "original:cka_debiased",
        "tokens_per_dimension",
    ],
    "models": ["original", "reference"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "activations",
    "cost": "one forward pass a row on three models",
    "maturity": "beta",
    "version": 1,
}

NOTHING = 1e-8
"""A weight at most this is rounding."""

ENOUGH = 4.0
"""Tokens for each dimension from which on the plain estimate is sound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which tokens, which estimate."""

    estimator: str = param(
        "auto",
        help="plain, debiased, or auto: debiased with fewer than 4 tokens for each dimension",
        paper="plain",
        choices=("auto", "plain", "debiased"),
    )
    tokens: str = param(
        "value",
        help="value: the tokens that carry the fact; answer: all tokens of the answer",
        paper="value",
        choices=("value", "answer"),
    )


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, float]]:
    """CKA with the reference, of the model and of the original, layer by layer.

    Returns:
        The tables that the card needs: layer -> value. A layer without variance is left out.

    Raises:
        ExpungeError: E-MODEL-011, E-USE-006 when the three models do not fit one another.
    """
    from expunge.lm.representations import clouds
    from expunge.numbers.geometry import cka, debiased_cka

    states = clouds(models, rows[""], params.tokens)
    found: dict[str, dict[str, float]] = {name: {} for name in NEEDS}
    for layer, retrained in states["reference"].items():
        u, o = states["model"][layer], states["original"][layer]
        found["tokens_per_dimension"][layer] = len(retrained) / retrained.shape[1]
        for name, measured in (("cka", cka), ("cka_debiased", debiased_cka)):
            found[name][layer] = measured(u, retrained)
            found[f"original:{name}"][layer] = measured(o, retrained)
    return {
        name: {layer: value for layer, value in table.items() if math.isfinite(value)}
        for name, table in found.items()
    }


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """How far the representations have moved to those of the retrained model.

    Args:
        scores: CKA with the reference of the model and of the original, both estimates, and the
            tokens for each dimension: layer -> value.
        params: Which estimate.
        reference: Not used; the comparison with it is in the readings.

    Returns:
        e_l as ``per_row``, w_l as ``beside["weight"]``.
    """
    layers = aligned(scores, *NEEDS)
    if not layers:
        return unmeasurable(
            "it takes the original, the retrained reference and rows whose states differ"
        )
    fair = {layer for layer, (*_, tokens) in layers.items() if _takes_debiased(tokens, params)}
    pairs = {layer: both[2:4] if layer in fair else both[:2] for layer, both in layers.items()}
    weights = {layer: max(1.0 - start, 0.0) for layer, (_, start) in pairs.items()}
    moved = {
        layer: clipped((now - start) / (1.0 - start)) if weights[layer] > NOTHING else 0.0
        for layer, (now, start) in pairs.items()
    }
    if sum(weights.values()) <= NOTHING:
        return unmeasurable("original and reference have the same representations of these rows")
    return Value(
        mean=weighted(moved, weights),
        per_row=moved,
        beside={"weight": weights},
        parts={
            "to_reference": fmean(now for now, _ in pairs.values()),
            "original_to_reference": fmean(start for _, start in pairs.values()),
        },
        note=f"rows are layers; debiased estimate in {len(fair)} of {len(layers)}",
    )


def _takes_debiased(tokens: float, params: Params) -> bool:
    """Whether a layer with so many tokens for each dimension takes the debiased estimate."""
    return params.estimator == "debiased" or (params.estimator == "auto" and tokens < ENOUGH)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The weighted mean of e_l [L]."""
    return {"mean": by_weight(rows, beside["weight"])}
