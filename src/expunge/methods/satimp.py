"""SatImp: ascend on tokens that are neither saturated nor already gone.

Objective:
    L = -gamma * tokenmean_F( sg(p_t ^ beta1 * (1 - p_t) ^ beta2) * nll_t ) + alpha * RETAIN

    The weight is largest at p = beta1 / (beta1 + beta2) and vanishes at both ends, so tokens known
    by heart start slowly.

Reference: Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning, 2025.

Departs from the paper:
    forget to retain is 10 to 1 as in its text and classes; its configuration file swaps the two.
    1 - p is computed without cancellation, so that it does not round to 0.
"""

from dataclasses import dataclass

import torch

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.mean import Mean, mean_of
from expunge.engine.step import Step

CARD = {
    "id": "satimp",
    "kind": "gradient",
    "summary": "Gradient ascent weighted towards tokens between known and forgotten.",
    "paper": "Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning (2025)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters and the two exponents."""

    retain_weight: float = param(0.1, help="weight of the retain term (alpha)", paper=0.1, low=0.0)
    beta1: float = param(5.0, help="exponent of p: spares what is gone", paper=[5, 6], low=0.0)
    beta2: float = param(1.0, help="exponent of 1 - p: spares what is saturated", paper=1, low=0.0)


def forget(step: Step, params: Params) -> Mean:
    """The negated token mean of the weighted negative log-likelihood, nats."""
    logp = step.forget.token_logp
    known, open_ = logp.detach().exp(), -torch.expm1(logp.detach())
    return mean_of(known**params.beta1 * open_**params.beta2 * logp)
