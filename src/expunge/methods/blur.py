"""BLUR: forgetting comes first; what keeps the rest acts only at right angles to it.

Objective:
    d = gamma * g_f + alpha * ( g_r - c * g_f ),   c = <g_f, g_r> / ||g_f||^2
    reverse:  d = alpha * g_r + gamma * ( g_f - c' * g_r ),   c' = <g_f, g_r> / ||g_r||^2

    g_f, g_r are the gradients of a whole step: g_f of a forget loss, g_r of the retain term. d goes
    to the optimiser. <d, g_f> = gamma ||g_f||^2 whatever the retain rows ask for: to first order
    the forget loss falls as if there were none of them.

    forget_loss=npo:  mean_F( -(2 / beta) log sigmoid( -beta (logp_i - logp0_i) ) )
    forget_loss=ga:   -tokenmean_F( nll )
    forget_loss=rmu:  mean_F( ||h_l - c u||^2 / d ), only the MLP outputs of blocks l-2 to l move

    With alpha = 1 this is the form d = g_r + (gamma - c) g_f of the question answering benchmarks;
    with gamma = 1 and alpha = lambda (800 to 1200) the form d = g_f + lambda (g_r - c g_f) of
    hazardous knowledge, which goes with forget_loss=rmu.

Reference: BLUR: A Bi-Level Optimization Approach for LLM Unlearning, 2025.

Departs from the paper:
    The combined gradient is clipped; the original code clips before it is formed, which does
    nothing. Its preference loss on whole vocabularies is replaced by that on answers. The retain
    part is left as it is where ||g_f|| is below 1e-12. Adam divides each weight's gradient by a
    scale of its own, so that the update itself is not exactly at right angles any more. lambda is
    1 unless given (``retain_weight``), for rmu too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine import misdirection
from expunge.engine.mean import Mean
from expunge.engine.preference import row_preference
from expunge.engine.projection import project_out
from expunge.engine.slots.combine import Gradients
from expunge.engine.slots.mask import Mask, all_trainable
from expunge.engine.steering import directions, distance, remember_topics
from expunge.engine.step import Step
from expunge.engine.task import Task

CARD = {
    "id": "blur",
    "kind": "gradient",
    "summary": "Forgets first; the retain gradient acts only at right angles to the forget one.",
    "paper": "BLUR: A Bi-Level Optimization Approach for LLM Unlearning (2025)",
    "needs": ["forget", "retain", "anchor"],
    "access": "weights",
    "cost": "1 forward and backward over forget and 1 over retain rows per step; 2 gradients held; "
    "the anchor is cached",
    "maturity": "beta",
    "version": 1,
    "loss_of": "npo",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the forget loss, and who comes first."""

    forget_loss: Literal["npo", "ga", "rmu"] = param(
        "npo",
        help="what forgets: a preference against the anchor, ascent, or misdirection",
        paper=["npo", "ga", "rmu"],
        choices=("npo", "ga", "rmu"),
    )
    retain_weight: float = param(
        1.0,
        help="weight of the retain gradient that is left (alpha; lambda with rmu)",
        paper=[1, 800, 1200],
        low=0.0,
    )
    reverse: bool = param(False, help="keeping comes first instead", paper=False)
    beta: float = param(
        0.1, help="forget_loss=npo: sharpness", paper=[0.1, 0.15], low=1e-6, high=100.0
    )
    layer: int | None = param(
        None,
        help="forget_loss=rmu: steered block, negative from the top; none takes 7/32 of the depth",
        paper=7,
    )
    steering: float = param(
        6.5, help="forget_loss=rmu: length activations are pushed to (c)", paper=6.5, low=0.0
    )
    positions: Literal["all", "answer"] = param(
        "all",
        help="forget_loss=rmu: pushed positions, all or those that predict the answer",
        paper="all",
        choices=("all", "answer"),
    )
    include_bos: bool = param(
        False, help="forget_loss=rmu: push the first position of a row as well", paper=True
    )


def prepare(task: Task, params: Params) -> None:
    """For misdirection, note the topics."""
    if params.forget_loss == "rmu":
        remember_topics(task)


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """Everything; with misdirection the MLP outputs of the steered block and two below it."""
    chosen = misdirection.mask if params.forget_loss == "rmu" else all_trainable
    return chosen(model, task, params)


def forget(step: Step, params: Params) -> Mean:
    """The loss that ``forget_loss`` names."""
    if params.forget_loss == "npo":
        return row_preference(step.forget, params.beta)
    if params.forget_loss == "ga":
        return -step.forget.nll
    hidden, positions = misdirection.steered(step.forget, params)
    target = params.steering * directions(step.forget, step.state, hidden.shape[-1])
    return distance(hidden, target, positions)


def combine(gradients: Gradients, state: Mapping[str, Any], params: Params) -> list[Tensor]:
    """What comes first, and of the other what is at right angles to it."""
    gamma, alpha = params.forget_weight, params.retain_weight
    forgets, keeps = gradients.forget, gradients.retain
    if params.reverse:
        pairs = zip(project_out(forgets, keeps), keeps, strict=True)
    else:
        pairs = zip(forgets, project_out(keeps, forgets), strict=True)
    return [gamma * f + alpha * r for f, r in pairs]
