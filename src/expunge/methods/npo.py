"""Negative preference optimisation: push forget answers below the frozen anchor.

Objective:
    L = -gamma * (2 / beta) * mean_i log sigmoid( -beta * (logp_i - logp0_i) ) + alpha * RETAIN

    logp_i sums over the answer tokens of row i; logp0_i is the same under the anchor, the model as
    it was at the start of this request. The weight of a row, 2 sigmoid(beta * (logp_i - logp0_i)),
    is 1 at the start and fades as its answer becomes unlikely, so the ascent damps itself;
    beta -> 0 recovers gradient ascent on row sums.

Reference: Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning,
2024.

Departs from the paper:
    The run stops at the level of rows the model never saw (``--stop-at``), where the paper runs a
    fixed number of epochs.
"""

from dataclasses import dataclass

from torch.nn.functional import logsigmoid

from expunge.core.params import GradientParams, param
from expunge.engine.mean import Mean, mean_of
from expunge.engine.step import Step

CARD = {
    "id": "npo",
    "kind": "gradient",
    "summary": "Bounded, self-damping ascent against the frozen start of the model.",
    "paper": "Negative Preference Optimization: From Catastrophic Collapse to Effective "
    "Unlearning (2024)",
    "needs": ["forget", "retain", "anchor"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step; the anchor is cached",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters and the sharpness of the preference."""

    beta: float = param(
        0.1, help="sharpness; towards 0 it becomes gradient ascent", paper=0.1, low=1e-6, high=100.0
    )


def forget(step: Step, params: Params) -> Mean:
    """Mean over forget rows of the negated log-odds of staying below the anchor, nats / beta."""
    ratio = step.forget.logp - step.forget.anchor.logp
    return mean_of(-2 / params.beta * logsigmoid(-params.beta * ratio))
