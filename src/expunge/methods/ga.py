"""Gradient ascent: raise the loss of the forget answers.

Objective:
    L = -gamma * tokenmean_F( nll ) + alpha * RETAIN

    with RETAIN = none by default: the bare method is the lower bound on utility.

Reference: Knowledge Unlearning for Mitigating Privacy Risks in Language Models, 2022; as a
baseline in TOFU: A Task of Fictitious Unlearning for LLMs, 2024.

Departs from the paper:
    The loss is unbounded below, so a run always has a stop: by default the level that rows the
    model never saw have; with ``--stop-at none`` the number of steps.
"""

from dataclasses import dataclass

from expunge.core.params import GradientParams, param
from expunge.engine.mean import Mean
from expunge.engine.step import Step

CARD = {
    "id": "ga",
    "kind": "gradient",
    "summary": "Gradient ascent on the forget answers; the minimal objective, no utility term.",
    "paper": "Knowledge Unlearning for Mitigating Privacy Risks in Language Models (2022)",
    "needs": ["forget"],
    "access": "weights",
    "cost": "1 forward and backward per step",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, without a retain term."""

    retain_term: str = param(
        "none",
        help="what keeps the rest in place",
        paper="none",
        choices=("none", "nll", "kl", "mse"),
    )


def forget(step: Step, params: Params) -> Mean:
    """The negated token-mean negative log-likelihood of the forget answers, nats."""
    return -step.forget.nll
