"""Dynamic utility score: how steady utility stays over a sequence of requests.

Definition (u_t the model's utility after request t = 1..T, u_0 that of the original):
    DUS = 1 - 1/(T-1) sum_{t<T} |u_{t+1} - u_t|
    area = (1/T) sum_t u_t / u_0        worst_drop = 1 - min_t u_t / u_0

Meaning: 1 means that utility did not move from request to request, whatever its level: a model
ruined by the first request and left so is perfectly steady. Read it with `area`, the share of the
original's utility that was kept on average, and `worst_drop`, the largest share ever lost; both
need the original's utility. A single request has no steadiness. There is no interval over steps,
which are not drawn by chance.

Reference: DRAGON: Guard LLM Unlearning in Context via Negative Detection and Reasoning (2025).

Departs from the paper: T = 1 is said to be not measurable; area and worst drop are ours.

Example:
    >>> from expunge.testing import measure
    >>> scores = {"utility": {"1": 0.5, "2": 0.25, "3": 0.5}, "original:utility": {"0": 0.5}}
    >>> value = measure("dynamic-utility", scores)
    >>> value.mean, round(value.parts["area"], 4), value.parts["worst_drop"]
    (0.75, 0.8333, 0.5)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.bootstrap import FloatArray
from expunge.core.results import Value
from expunge.core.scores import table, unmeasurable
from expunge.numbers.curves import in_order, numbered, steps_of

CARD = {
    "id": "dynamic-utility",
    "kind": "metric",
    "summary": "Steadiness of utility over a sequence of requests.",
    "paper": "DRAGON: Guard LLM Unlearning in Context via Negative Detection and Reasoning (2025)",
    "needs": ["utility"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "none beyond the utility after each request",
    "maturity": "beta",
    "version": 1,
}

ORIGINAL = "original:utility"
"""Where the original's utility may stand, under any one name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The dynamic utility score.

    Args:
        scores: ``utility``: step ("1", "2", ...) -> utility in [0, 1] after that request; and
            ``original:utility`` with one number, where the original was measured.
        params: Nothing to set.
        reference: Not used.

    Returns:
        The score, with ``area`` and ``worst_drop`` among the parts where the original is known.
    """
    curve, why = steps_of(scores, "utility")
    if why:
        return unmeasurable(why)
    if len(curve) == 1:
        return unmeasurable("steadiness needs at least two requests, and there was one")
    given = table(scores, ORIGINAL)
    start = next(iter(given.values()), 0.0) if len(given) == 1 else 0.0
    beside = {"step": numbered(curve)}
    if start > 0:
        beside["original"] = dict.fromkeys(curve, float(start))
    parts = _numbers(np.array(list(curve.values())), start)
    note = "" if start > 0 else "no area or worst drop: the original's utility is not known, or 0"
    return Value(mean=parts.pop("mean"), per_row=curve, beside=beside, parts=parts, note=note)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The score from the values [T] and numbers [T] of the steps."""
    curve = in_order(rows, beside["step"])
    start = float(beside["original"][0]) if "original" in beside else 0.0
    return {"mean": float("nan")} if curve is None else _numbers(curve, start)


def _numbers(curve: FloatArray, start: float) -> dict[str, float]:
    steady = {"mean": 1 - float(np.abs(np.diff(curve)).mean())}
    if start <= 0:
        return steady
    kept = curve / start
    return steady | {"area": float(kept.mean()), "worst_drop": float(1 - kept.min())}
