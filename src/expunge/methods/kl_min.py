"""KL minimisation: ascend on the forget answers, stay at the anchor's distribution elsewhere.

Objective:
    L = -gamma * tokenmean_F( nll ) + alpha * mean over positions of R of KL( anchor || model )

    The anchor is the model as it was at the start of this request.

Reference: TOFU: A Task of Fictitious Unlearning for LLMs, 2024.

Departs from the paper:
    The mean runs over real positions (``kl_scope=all_nonpad``); the original code averages over
    padding too, which ``kl_scope=legacy_all`` reproduces.
"""

from dataclasses import dataclass

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.mean import Mean
from expunge.engine.step import Step

CARD = {
    "id": "kl-min",
    "kind": "gradient",
    "summary": "Gradient ascent on forget rows; retain rows keep the anchor's distribution.",
    "paper": "TOFU: A Task of Fictitious Unlearning for LLMs (2024)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step; the anchor's hidden "
    "states are cached, its vocabulary projection is a copy unless an adapter is trained",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters with the divergence as retain term."""

    retain_term: str = param(
        "kl", help="what keeps the rest", paper="kl", choices=("none", "nll", "kl", "mse")
    )


def forget(step: Step, params: Params) -> Mean:
    """The negated token-mean negative log-likelihood of the forget answers, nats."""
    return -step.forget.nll
