"""PDU: flatten the logits of forget answers while the retain loss stays under a bound.

Objective:
    L = gamma * L_F + lambda * ( L_R - epsilon )
    L_F = tokenmean_F( ( max_k z_k - mean_k z_k )^2 ),   L_R = RETAIN
    after every step of epoch > warmup_epochs:   lambda <- max( 0, lambda + eta * (L_R - epsilon) )

    lambda is the multiplier of the constraint L_R <= epsilon: it grows while the bound is broken
    and falls to 0 while it holds. L_F is 0 exactly where all logits are equal. L_F is quadratic in
    the logits, often in the hundreds, so lambda starts large (``retain_weight``).

Reference: Constrained Entropic Unlearning: A Primal-Dual Framework for Large Language Models,
2025.

Departs from the paper:
    Each token's logits are those that predict it; the original code pairs a position's logits with
    its own label, so it leaves out the first answer token and counts the one after the end. lambda
    follows the retain loss of the whole step over all processes; the code's processes each follow
    their own. While the forget term rests at the stop level, lambda rests as well.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.datasets import Datasets
from expunge.engine.mean import Mean, mean_of
from expunge.engine.measure import level, sample_items
from expunge.engine.slots import retain as shared
from expunge.engine.slots.combine import Gradients
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.hooks import without_dropout

CARD = {
    "id": "pdu",
    "kind": "gradient",
    "summary": "Flat logits on forget answers under a bound on the retain loss (dual variable).",
    "paper": "Constrained Entropic Unlearning: A Primal-Dual Framework for Large Language Models "
    "(2025)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "1 forward and backward over forget and 1 over retain rows per step; 2 gradients held",
    "maturity": "paper",
    "version": 1,
}

DUAL, EPOCHS, BOUND = "pdu.dual", "pdu.epochs", "pdu.bound"

MARGIN = 0.1
"""Nats by which ``epsilon=auto`` lies above the retain loss of the starting model (INFERRED)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters and those of the constraint."""

    retain_term: str = param(
        "nll", help="what is bounded", paper="nll", choices=("nll", "kl", "mse")
    )
    retain_weight: float = param(
        100.0, help="multiplier of the constraint at the start (lambda)", paper=100, low=0.0
    )
    eta: float = param(5.0, help="step size of the multiplier", paper=5, low=0.0)
    epsilon: float | Literal["auto"] = param(
        0.3,
        help="bound on the retain term; auto: a tenth of a nat above the starting model's NLL",
        paper=0.3,
        low=0.0,
    )
    warmup_epochs: int = param(5, help="epochs before the multiplier moves", paper=5, low=0)


def prepare(task: Task, params: Params) -> None:
    """Settle the bound and put the multiplier at its start."""
    task.state.update({DUAL: params.retain_weight, EPOCHS: 0, BOUND: _bound(task, params)})


def forget(step: Step, params: Params) -> Mean:
    """Token mean of the squared height of the largest logit over the mean one."""
    if DUAL in step.state:
        step.report("dual", mean_of(torch.tensor([step.state[DUAL]], dtype=torch.float64)))
    logits = step.forget.logits
    return mean_of((logits.amax(-1) - logits.mean(-1)) ** 2)


def retain(step: Step, params: Params) -> Mean | None:
    """By how much the retain term is over its bound (negative: under it)."""
    term = shared.by_term(step, params)
    bound = step.state.get(BOUND, params.epsilon)
    return None if term is None else Mean(term.num - bound * term.den, term.den)


def combine(gradients: Gradients, state: dict[str, Any], params: Params) -> list[Tensor]:
    """``gamma * forget + lambda * retain``; then lambda takes its step."""
    pairs = zip(gradients.forget, gradients.retain, strict=True)
    combined = [params.forget_weight * f + state[DUAL] * r for f, r in pairs]
    if state[EPOCHS] >= params.warmup_epochs:
        state[DUAL] = stepped(state[DUAL], gradients.values["retain"], params.eta)
    return combined


def on_epoch(state: dict[str, Any], params: Params) -> None:
    """Count epochs, for the warm-up."""
    state[EPOCHS] += 1


def stepped(dual: float, violation: float, eta: float) -> float:
    """The multiplier after one step: up while the retain term is over its bound, never below 0."""
    return max(0.0, dual + eta * violation)


def _bound(task: Task, params: Params) -> float:
    if params.epsilon != "auto":
        return float(params.epsilon)
    datasets = Datasets(task, device=str(task.model.device))
    items = sample_items(datasets, "retain", task.seed, wordings=False)
    with without_dropout(task.model):
        return level(task.model, datasets, items).nll + MARGIN
