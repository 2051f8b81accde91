"""DPO with refusals: prefer a refusal to the answer, both measured against the anchor.

Objective:
    L = -gamma * (2 / beta) * mean_i log sigmoid( beta * m_i ) + alpha * RETAIN
    m_i = (logp(refusal_i) - logp0(refusal_i)) - (logp(answer_i) - logp0(answer_i))

    logp sums over the tokens of the reply to forget prompt i; a refusal is drawn anew for every row
    and epoch.

Reference: TOFU: A Task of Fictitious Unlearning for LLMs, 2024; as a preference baseline in
Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning, 2024.

Departs from the paper:
    The factor 2 / beta and the retain term are those of later codes; the first code has neither.
"""

from dataclasses import dataclass

from torch.nn.functional import logsigmoid

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.mean import Mean, mean_of
from expunge.engine.step import Step

CARD = {
    "id": "idk-dpo",
    "kind": "gradient",
    "summary": "Preference of a refusal over the answer, against the frozen start.",
    "paper": "TOFU: A Task of Fictitious Unlearning for LLMs (2024)",
    "needs": ["forget", "retain", "refusal", "anchor"],
    "access": "weights",
    "cost": "1 forward and backward over forget, refusal and retain rows per step; the anchor is "
    "cached",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters and the sharpness of the preference."""

    beta: float = param(0.1, help="sharpness", paper=0.1, low=1e-6, high=100.0)


def forget(step: Step, params: Params) -> Mean:
    """Mean over forget rows of the negated log-odds of preferring the refusal, nats / beta."""
    won = step.refusal.logp - step.refusal.anchor.logp
    lost = step.forget.logp - step.forget.anchor.logp
    return mean_of(-2 / params.beta * logsigmoid(params.beta * (won - lost)))
