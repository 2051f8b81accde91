"""Weighted gradient ascent: push most where the model is surest.

Objective:
    L = -gamma * tokenmean_F( sg(p_t ^ beta) * nll_t ) + alpha * RETAIN,   p_t = exp(-nll_t)

    sg stops the gradient: without it the gradient would change sign at nll = 1 / beta.

Reference: Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond, 2025.

Departs from the paper:
    The run stops at the level of rows the model never saw (``--stop-at``).
"""

from dataclasses import dataclass

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.mean import Mean, mean_of
from expunge.engine.step import Step

CARD = {
    "id": "wga",
    "kind": "gradient",
    "summary": "Gradient ascent whose tokens weigh by how sure the model is of them.",
    "paper": "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond (2025)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters and the sharpness of the weights."""

    beta: float = param(1.0, help="exponent of the token's probability", paper=[1, 5], low=0.0)


def forget(step: Step, params: Params) -> Mean:
    """The negated token mean of the weighted negative log-likelihood, nats."""
    logp = step.forget.token_logp
    weight = (params.beta * logp).exp().detach()
    return mean_of(weight * logp)
