"""Gradient difference: ascent on the forget answers, descent on the retain answers.

Objective:
    L = -gamma * tokenmean_F( nll ) + alpha * RETAIN,   RETAIN = tokenmean_R( nll )

    Each term has its own denominator: one mean over both would change their ratio.

Reference: Continual Learning and Private Unlearning, 2022; as a baseline in TOFU: A Task of
Fictitious Unlearning for LLMs, 2024.

Departs from the paper:
    The forget term is unbounded below and dominates in the end; the default stop ends the run at
    the level of rows the model never saw.
"""

from dataclasses import dataclass

from expunge.core.families import GradientParams
from expunge.engine.mean import Mean
from expunge.engine.step import Step

CARD = {
    "id": "grad-diff",
    "kind": "gradient",
    "summary": "Gradient ascent on forget rows with a retain term that is normalised separately.",
    "paper": "Continual Learning and Private Unlearning (2022)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters: gamma = alpha = 1, negative log-likelihood on retain rows."""


def forget(step: Step, params: Params) -> Mean:
    """The negated token-mean negative log-likelihood of the forget answers, nats."""
    return -step.forget.nll
