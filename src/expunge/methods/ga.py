"""Gradient ascent: raise the loss of the forget answers.

Objective:
    L = -gamma * tokenmean_F( nll ) + alpha * RETAIN

    with RETAIN = none by default: the bare method is the lower bound on utility.

Reference: Knowledge Unlearning for Mitigating Privacy Risks in Language Models, 2022; as a
baseline in TOFU: A Task of Fictitious Unlearning for LLMs, 2024.

Departs from the paper:
    The loss is unbounded below, so a run always has a stop: the level that rows the model never
    saw have (``--stop-at``), and at the latest where the forget answers are no likelier than a
    guess among all tokens (``max_forget_nll``). With both off, the number of steps is all there is.
"""

from dataclasses import dataclass
from typing import Literal

from expunge.core.families import GradientParams
from expunge.core.params import param
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
    max_forget_nll: float | Literal["auto"] | None = param(
        "auto",
        help="the run ends where the forget rows cost this many nats a token; auto is ln V",
        paper="auto",
        low=0.0,
    )


def forget(step: Step, params: Params) -> Mean:
    """The negated token-mean negative log-likelihood of the forget answers, nats."""
    return -step.forget.nll


stop = "guess"
"""The run ends where the forget answers are as unlikely as was asked for, or as a guess."""
