"""Needle: disturb the value vector that holds a concept, then train that vector and nothing else.

Objective:
    v_j <- v_j + N(0, deviation^2 I), once; then, moving v_j alone,
    objective=ga     L = -gamma * tokenmean_F( nll ) + alpha * RETAIN
    objective=npo    L = gamma * mean_F( -(2 / beta) log sigmoid( -beta (logp_i - logp0_i) ) )
                         + alpha * RETAIN

    v_j is column j of the output matrix of one MLP, see `concept-vectors`. logp0 is the model's own
    after the noise. Every other entry ends as it was, whatever the optimiser does (its update is
    masked, not only its gradient).

Reference: Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces, 2024 (the
gradient-based needle).

Departs from the paper:
    Its preference form with given refusals (DPO) is left out, and training every value vector. The
    run ends at ``max_forget_nll``, where the paper stops at a loss of 0 for preferences. ``lr`` is
    the paper's .1 for models of any size: one vector moves. Which vector, and ``deviation=auto``:
    as concept-vectors.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.editing.concepts import disturb, traces_of
from expunge.engine.mean import Mean
from expunge.engine.preference import row_preference
from expunge.engine.slots.mask import Mask
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.traces import entries_of

CARD = {
    "id": "needle",
    "kind": "gradient",
    "summary": "Ascent that moves the value vector of a concept, disturbed before, and no more.",
    "paper": "Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces (2024)",
    "needs": ["forget", "anchor"],
    "access": "weights",
    "cost": "1 forward and backward per step; the anchor is cached",
    "maturity": "paper",
    "version": 1,
    "adapters": False,
    "loss_of": "ga",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, which vectors, and how they are disturbed."""

    retain_term: str = param(
        "none",
        help="what keeps the rest in place",
        paper="none",
        choices=("none", "nll", "kl", "mse"),
    )
    objective: Literal["ga", "npo"] = param(
        "ga", help="what the vector learns", paper=["ga", "npo", "dpo"], choices=("ga", "npo")
    )
    beta: float = param(0.1, help="objective=npo: sharpness", paper=0.1, low=1e-6, high=100.0)
    lr: float | Literal["auto"] = param(
        0.1, help="learning rate of the vector", paper=[0.1, 0.5], low=0.0
    )
    vectors: tuple[str, ...] | None = param(
        None, help="layer:dim of each; none takes those of the rows, or looks for them"
    )
    deviation: float | Literal["auto"] = param(
        "auto",
        help="standard deviation of the noise at the start; auto: five times that of the matrix",
        paper=0.1,
        low=0.0,
    )
    max_forget_nll: float | Literal["auto"] | None = param(
        "auto",
        help="the run ends where the forget rows cost this many nats a token; auto is ln V",
        paper="auto",
        low=0.0,
    )


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The vectors, as entries of their matrices."""
    moves: dict[str, Tensor | bool] = {name: False for name, _ in model.named_parameters()}
    for trace in traces_of(task, params.vectors):
        name, entries = entries_of(model, trace)
        others = moves[name]
        moves[name] = entries | others if isinstance(others, Tensor) else entries
    return moves


def prepare(task: Task, params: Params) -> None:
    """Disturb the vectors; what the forget term compares with is the model after that."""
    traces = traces_of(task, params.vectors)
    for trace in traces:
        disturb(task.model, trace, deviation=params.deviation, seed=task.seed)
    task.record["vectors"] = [f"{trace.layer}:{trace.dim}" for trace in traces]


def forget(step: Step, params: Params) -> Mean:
    """Ascent, or the preference against the model after the noise."""
    if params.objective == "npo":
        return row_preference(step.forget, params.beta)
    return -step.forget.nll


stop = "guess"
"""The run ends where the forget answers are as unlikely as was asked for, or as a guess."""
