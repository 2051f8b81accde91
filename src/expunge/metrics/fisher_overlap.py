"""Fisher erasure: does the model find the rows as surprising as the retrained model does?

Definition (m: this model u, the original o, the retrained reference r; g: gradient of one row's
mean negative log-likelihood of the tokens that carry its fact, by the weights of block l):
    F_m       = log(1 + mean over rows and weights of g^2)
    excess_m  = max(F_r - F_m, 0)                     a model that knows a row has small gradients
    e_l       = 1 - clip(excess_u / excess_o, 0, 1)
    score     = sum_l excess_o e_l / sum_l excess_o

Meaning:
    0: gradients as small as in the original; 1: as large as in the retrained model, or larger. It
    is not bounded by ruin: a model in ruins has huge gradients and gets 1, so read it beside
    utility. The values in `per_row` are those of layers, and the interval is over layers. Layers in
    which the retrained model is no more surprised than the original tell nothing and have no
    weight. What fools it: a model that refuses is surprised by the answer and looks like one that
    forgot.

Reference: Measuring the Depth of LLM Unlearning via Activation Patching (2026), where this is a
baseline.

Departs from the paper: nothing. Rows are differentiated one at a time.

Example:
    >>> from expunge.testing import measure
    >>> scores = {"fisher": [0.3, 0.2], "original:fisher": [0.1, 0.0]}
    >>> value = measure("fisher-overlap", scores, reference={"fisher": [0.5, 0.2]})
    >>> round(value.mean, 6)     # excess .4 and .2 in the original, .2 and 0 now
    0.666667
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, matched, table, unmeasurable
from expunge.numbers.erasure import by_weight, clipped, weighted

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "fisher-overlap",
    "kind": "metric",
    "summary": "Whether the rows' gradients are as large as in the retrained model.",
    "paper": "Measuring the Depth of LLM Unlearning via Activation Patching (2026)",
    "needs": ["fisher", "original:fisher", "reference"],
    "models": ["original"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "weights",
    "cost": "one forward and one backward pass a row, each row alone, on three models",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which tokens."""

    tokens: str = param(
        "value",
        help="value: the tokens that carry the fact; answer: all tokens of the answer",
        paper="value",
        choices=("value", "answer"),
    )


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, float]]:
    """``fisher`` of the model and ``original:fisher``: layer -> log(1 + mean squared gradient)."""
    import numpy as np

    from expunge.lm.layer_gradients import squared_gradients
    from expunge.lm.representations import layer_names, spots

    found = {}
    for name, subject in (("fisher", models.model), ("original:fisher", models.original)):
        assert subject is not None  # noqa: S101
        places = spots(subject, rows[""], params.tokens)
        values = np.log1p(squared_gradients(subject, places)).tolist() if places else []
        found[name] = dict(zip(layer_names(subject.model), values, strict=bool(places)))
    return found


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """How much of the retrained model's surprise is back.

    Args:
        scores: ``fisher`` and ``original:fisher``, layer -> F.
        params: Not used.
        reference: ``fisher`` of the retrained model.

    Returns:
        e_l as ``per_row``, the original's excess as ``beside["weight"]``.

    Raises:
        ExpungeError: E-DATA-013 when the reference has other layers.
    """
    if reference is None:
        return unmeasurable("it compares with a retrained reference, and none was given")
    layers, expected = aligned(scores, "fisher", "original:fisher"), table(reference, "fisher")
    if not layers or not expected:
        return unmeasurable("no layer has the gradients of the model, the original, the reference")
    matched({layer: now for layer, (now, _) in layers.items()}, expected, allow_unmatched=False)
    read = (*expected.values(), *(each for both in layers.values() for each in both))
    if not all(map(math.isfinite, read)):
        return unmeasurable("the gradients of a layer are not numbers")
    weights = {layer: max(expected[layer] - start, 0.0) for layer, (_, start) in layers.items()}
    if sum(weights.values()) <= 0:
        return unmeasurable("the retrained model is no more surprised than the original")
    gone = {
        layer: 1.0 - clipped(max(expected[layer] - now, 0.0) / weights[layer])
        if weights[layer] > 0
        else 1.0
        for layer, (now, _) in layers.items()
    }
    return Value(
        mean=weighted(gone, weights),
        per_row=gone,
        beside={"weight": weights},
        note="rows are layers",
    )


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The weighted mean of e_l [L]."""
    return {"mean": by_weight(rows, beside["weight"])}
