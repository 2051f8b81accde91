"""Dynamic deviation score: the deviation over a sequence of requests, and how often it got worse.

Definition (s_t the deviation score after request t = 1..T):
    DDS = (1/T) sum_t s_t  +  beta/(T-1) sum_{t<T} max(0, s_{t+1} - s_t)        beta = 1/2

Meaning: Level plus upward moves, on the scale of the deviation score: low is good. A model that
was bad at the second request and mended at the third pays for the move. `level` and `rise` tell
the two apart, `worst` is the worst step, which a mean hides. After a single request there is no
move, and the number is the level alone; the note says so. Steps are not drawn by chance, so there
is no interval over them: run other seeds or other orders of the requests.

Reference: DRAGON: Guard LLM Unlearning in Context via Negative Detection and Reasoning (2025).

Departs from the paper: T = 1 is defined, and the worst step is reported beside it.

Example:
    >>> from expunge.testing import measure
    >>> value = measure("dynamic-deviation", {"deviation": {"1": 20.0, "2": 30.0, "3": 25.0}})
    >>> value.mean, value.parts["level"], value.parts["worst"]
    (27.5, 25.0, 30.0)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import unmeasurable
from expunge.numbers.curves import in_order, numbered, steps_of

CARD = {
    "id": "dynamic-deviation",
    "kind": "metric",
    "summary": "Level and upward moves of the deviation score over a sequence of requests.",
    "paper": "DRAGON: Guard LLM Unlearning in Context via Negative Detection and Reasoning (2025)",
    "needs": ["deviation"],
    "better": "low",
    "range": [0.0, None],
    "access": "text",
    "cost": "none beyond the deviation score after each request",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The weight of the moves."""

    beta: float = param(0.5, help="weight of the mean upward move", paper=0.5, low=0.0)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The dynamic deviation score.

    Args:
        scores: ``deviation``: step ("1", "2", ...) -> deviation score after that request.
        params: The weight of the moves.
        reference: Not used.

    Returns:
        The score, with ``level``, ``rise`` (mean upward move) and ``worst`` among the parts.
    """
    curve, why = steps_of(scores, "deviation")
    if why:
        return unmeasurable(why)
    parts = _numbers(np.array(list(curve.values())), params)
    mean = parts.pop("mean")
    if len(curve) == 1:
        return Value(mean=mean, parts=parts, note="one request: no move, the level alone")
    return Value(mean=mean, per_row=curve, beside={"step": numbered(curve)}, parts=parts)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The score from the values [T] and numbers [T] of the steps."""
    curve = in_order(rows, beside["step"])
    return {"mean": float("nan")} if curve is None else _numbers(curve, params)


def _numbers(curve: FloatArray, params: Params) -> dict[str, float]:
    level = float(curve.mean())
    rise = float(np.maximum(0, np.diff(curve)).mean()) if len(curve) > 1 else 0.0
    mean = level + params.beta * rise
    return {"mean": mean, "level": level, "rise": rise, "worst": float(curve.max())}
