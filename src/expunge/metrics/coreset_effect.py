"""Coreset effect: how small a part of the forget rows does what all of them do.

Definition (UE_p unlearning effectiveness on all forget rows, UT_p utility, of a model that forgot
by a share p of the rows, in as many steps; means over seeds):
    index = smallest p with UE_p >= .95 UE_1 and UT_p >= UT_1 - .02

Reference: LLM Unlearning Reveals a Stronger-Than-Expected Coreset Effect in Current Benchmarks
(2025).

Departs from the paper: only its abstract was read, so the two margins and this index are INFERRED.

Meaning: it judges a benchmark, not a model. An index of .05 says that 5% of the rows would have
done: what is called forgetting there is a direction that any few rows give, and the rest of the
set tests nothing. 1 says that every row counts. What a small draw does varies: three seeds at
least. The index takes the smallest share that passes, even where a larger one fails; look at the
curve in the parts. Only the given shares can come out.

Example: a quarter of the rows does 95% of what all do, five in a hundred do not.

    >>> from expunge.testing import measure
    >>> value = measure("coreset-effect", {
    ...     "share": [0.05, 0.25, 1.0], "effectiveness": [0.5, 0.76, 0.8],
    ...     "utility": [0.7, 0.69, 0.7]})
    >>> value.mean, value.parts["effectiveness@0.25"]
    (0.25, 0.76)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, lacking, unmeasurable

CARD = {
    "id": "coreset-effect",
    "kind": "metric",
    "summary": "Smallest share of the forget rows that does what all of them do.",
    "paper": "LLM Unlearning Reveals a Stronger-Than-Expected Coreset Effect in Current "
    "Benchmarks (2025)",
    "needs": ["effectiveness", "utility", "share"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "weights",
    "cost": "a run of the method for every share and seed",
    "maturity": "paper",
    "version": 1,
}

KINDS = ("effectiveness", "utility")
ALL = 1.0
"""The share that is all rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What counts as the same."""

    keep: float = param(0.95, help="share of the full run's effectiveness", low=0.0, high=1.0)
    loss: float = param(0.02, help="utility that may be lost against the full run", low=0.0)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The smallest share that does.

    Args:
        scores: ``effectiveness`` and ``utility`` of every run, and the ``share`` in (0, 1] of the
            forget rows it was given.
        params: What counts as the same.
        reference: Not used.

    Returns:
        The share; the curves ``effectiveness@SHARE`` and ``utility@SHARE`` are parts.
    """
    runs = aligned(scores, *KINDS, "share")
    if broken := [run for run, given in runs.items() if not all(map(math.isfinite, given))]:
        return unmeasurable(f"run {broken[0]} has a value that is not a number")
    beside: dict[str, dict[str, float]] = {}
    for run, (*numbers, share) in runs.items():
        for kind, number in zip(KINDS, numbers, strict=True):
            beside.setdefault(f"{kind}@{float(share)!r}", {})[run] = float(number)
    if f"effectiveness@{ALL!r}" not in beside:
        return unmeasurable(
            "no run was given all rows (share 1), and there is nothing to compare with"
        )
    arrays = {name: np.array(list(of.values())) for name, of in beside.items()}
    parts = aggregate(np.array([]), arrays, params)
    if math.isnan(parts["mean"]):
        return unmeasurable("the runs over all rows forgot nothing: effectiveness 0 or less")
    per_row = {run: float(given[0]) for run, given in runs.items()}
    note = lacking(per_row, scores, *KINDS, "share")
    return Value(mean=parts.pop("mean"), per_row=per_row, beside=beside, parts=parts, note=note)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The index and both curves, from the values [seeds] of every share."""
    curve = {name: float(of.mean()) for name, of in sorted(beside.items())}
    full = {kind: curve[f"{kind}@{ALL!r}"] for kind in KINDS}
    if full["effectiveness"] <= 0:
        return {"mean": math.nan, **curve}
    shares = sorted(float(name.partition("@")[2]) for name in curve if name.startswith(KINDS[0]))
    index = min(share for share in shares if _does(share, curve, full, params))
    return {"mean": index, **curve}


def _does(
    share: float, curve: Mapping[str, float], full: Mapping[str, float], params: Params
) -> bool:
    effective = curve[f"effectiveness@{share!r}"] >= params.keep * full["effectiveness"]
    return effective and curve[f"utility@{share!r}"] >= full["utility"] - params.loss
