"""SimNPO: negative preference optimisation without an anchor, normalised by length.

Objective:
    L = -gamma * (2 / beta) * mean_i log sigmoid( beta * (nll_i - delta) ) + alpha * RETAIN

    nll_i is the mean over the answer tokens of row i. The weight of a row, 2 sigmoid(-beta (nll_i
    - delta)), is about 1 while the answer is known and fades as its mean rises past delta; a short
    answer is pushed as hard as a long one.

    over=sum: nll_i is the sum instead, as On the Impossibility of Retrain Equivalence in Machine
    Unlearning (2025) writes it, with beta 1; long answers then stop being pushed first.

Reference: Simplicity Prevails: Rethinking Negative Preference Optimization for LLM Unlearning,
2024.

Departs from the paper:
    beta, gamma and alpha default to the paper's TOFU forget10 values; the run stops at the level
    of rows the model never saw (``--stop-at``). The offset is called delta here, gamma in the
    paper's code.
"""

from dataclasses import dataclass
from typing import Literal

from torch.nn.functional import logsigmoid

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.mean import Mean, mean_of
from expunge.engine.step import Step

CARD = {
    "id": "simnpo",
    "kind": "gradient",
    "summary": "NPO without an anchor: rows are pushed until their mean loss passes an offset.",
    "paper": "Simplicity Prevails: Rethinking Negative Preference Optimization for LLM "
    "Unlearning (2024)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the sharpness and the offset."""

    forget_weight: float = param(
        0.125, help="weight of the forget term (gamma)", paper=[0.1375, 0.125, 1.0], low=0.0
    )
    beta: float = param(4.5, help="sharpness", paper=[2.5, 4.5, 0.7, 0.75], low=1e-6, high=100.0)
    over: Literal["mean", "sum"] = param(
        "mean",
        help="whether a row's loss is the mean or the sum over its answer tokens",
        paper="mean",
        choices=("mean", "sum"),
    )
    delta: float = param(0.0, help="offset of the mean loss, nats a token", paper=0.0)


def forget(step: Step, params: Params) -> Mean:
    """Mean over forget rows of the negated log-odds of a mean loss above delta, nats / beta."""
    logp = step.forget.logp if params.over == "sum" else step.forget.logp_mean
    excess = -logp - params.delta
    return mean_of(-2 / params.beta * logsigmoid(params.beta * excess))
