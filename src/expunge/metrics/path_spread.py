"""Path spread: how much the result of forgetting depends on the order in which a model learned.

Definition (g(o, s) a utility of the model with training order o and seed s, after forgetting to the
same level; n seeds an order):
    g(o)      = mean over s of g(o, s)
    PS        = max over o of g(o) - min over o of g(o)
    PS(seed)  = mean over o of ( max over s of g(o, s) - min over s of g(o, s) )
    ratio     = PS / PS(seed)

Reference: On the Impossibility of Retrain Equivalence in Machine Unlearning (2025).

Departs from the paper: it reports utilities by order and argues from them; the spread, and setting
it against the spread of seeds, are ours. Seeds are averaged before the spread over orders is taken,
so that noise alone makes PS small; which mean is meant is INFERRED.

Meaning: two models that learned the same in another order have the same retrained model, up to what
order makes of retraining. Where PS is larger than the seeds explain (ratio above 1), a rule that
does not know the history brought at most one of them near it, and "equivalent to retraining"
cannot be promised. At least three seeds an order are wanted. Runs must be compared at the same
forget score: without that, an order that was merely forgotten less looks better kept. The interval
draws seeds within each order; a spread is never below 0, so it leans upwards where seeds are few.

Example: orders at .7 and .5 on average, seeds .2 and .1 apart.

    >>> from expunge.testing import measure
    >>> value = measure("path-spread", {
    ...     "utility": [0.6, 0.8, 0.45, 0.55], "order": ["AB", "AB", "BA", "BA"]})
    >>> round(value.mean, 6), round(value.parts["seed_spread"], 6), round(value.parts["ratio"], 6)
    (0.2, 0.15, 1.333333)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.bootstrap import FloatArray
from expunge.core.results import Value
from expunge.core.scores import aligned, lacking, unmeasurable

CARD = {
    "id": "path-spread",
    "kind": "metric",
    "summary": "Spread of a utility over training orders, beside its spread over seeds.",
    "paper": "On the Impossibility of Retrain Equivalence in Machine Unlearning (2025)",
    "needs": ["utility", "order"],
    "better": "low",
    "range": [0.0, None],
    "access": "weights",
    "cost": "training a model for every order and seed, and forgetting in each",
    "maturity": "paper",
    "version": 1,
}

SEEDS = 3
"""Runs of an order below which the spread of seeds says little."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The spread over orders.

    Args:
        scores: ``utility`` of every run, and its ``order`` by name.
        params: Nothing to set.
        reference: Not used.

    Returns:
        PS in the unit of the utility; ``seed_spread``, ``ratio`` where seeds differ at all, and
        the mean of every order (``order:NAME``) are parts.
    """
    runs = aligned(scores, "utility", "order")
    beside: dict[str, dict[str, float]] = {}
    for run, (utility, order) in runs.items():
        beside.setdefault(f"order:{order}", {})[run] = float(utility)
    if len(beside) < 2:
        return unmeasurable(f"a spread over orders needs two of them, and there is {len(beside)}")
    fewest = min(map(len, beside.values()))
    if fewest < 2:
        return unmeasurable("the spread over seeds needs two runs of every order")
    if broken := [run for run, (utility, _) in runs.items() if not math.isfinite(utility)]:
        return unmeasurable(f"the utility of run {broken[0]} is not a number")
    parts = aggregate(
        np.array([]), {name: np.array(list(of.values())) for name, of in beside.items()}, params
    )
    few = f"{fewest} runs of an order, {SEEDS} are wanted" if fewest < SEEDS else ""
    per_row = {run: float(utility) for run, (utility, _) in runs.items()}
    note = "; ".join(filter(None, (few, lacking(per_row, scores, "utility", "order"))))
    return Value(mean=parts.pop("mean"), per_row=per_row, beside=beside, parts=parts, note=note)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The spread and its parts, from the utilities [n] of every order."""
    means = {name: float(of.mean()) for name, of in sorted(beside.items())}
    spread = max(means.values()) - min(means.values())
    seeds = float(np.mean([np.ptp(of) for _, of in sorted(beside.items())]))
    ratio = {"ratio": spread / seeds} if seeds > 0 else {}
    return {"mean": spread, "seed_spread": seeds, **ratio, **means}
