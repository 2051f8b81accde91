"""SURE: large steps on few units, so that rounding the weights does not undo them.

Objective:
    L = gamma * L_F + alpha * RETAIN;   only the rows j with n_j >= threshold move
    n_j = || gradient of L_F at the start in row j ||,   threshold = percentile of all n_j

    objective=ga:    L_F = -tokenmean_F( nll )
    objective=npo:   L_F = mean_i( -(2 / beta) * log sigmoid( -beta * ( logp_i - logp0_i ) ) )

    Rounding to b bits has the step max|w| / (2^(b-1) - 1), and a change of less than half a step
    mostly rounds back: what little steps have forgotten is known again. So the learning rate is
    larger than elsewhere, and the rest of the model is kept by not moving it. A row is what makes
    one output of a matrix, one token of an embedding, one element of a vector. At the start both
    objectives have the same gradient but for a factor, so they choose the same rows.

Reference: Catastrophic Failure of LLM Unlearning via Quantization, 2024.

Departs from the paper:
    The original code never applies its mask (the trainer calls no such hook) and counts the forget
    gradient twice; ours does neither. Rows without any gradient do not move, even where the
    percentile is 0. NPO is formed on answers, the code's on single logits. INFERRED: how much
    larger the learning rate is; ``auto`` takes five times that of other methods (the scripts name
    1e-5, no more than their baselines). ``recompute=yes`` chooses anew in every step, by that
    step's forget gradient, as the code means to in every part of a step. Only gradients are masked
    then: what a row took up while it was chosen moves it a little further, and while the forget
    term rests all rows follow the retain term.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.mean import Mean
from expunge.engine.preference import row_preference
from expunge.engine.saliency import nll_gradients, over_units, simplest, transposed, unit_norms
from expunge.engine.slots.combine import Gradients, weighted_sum
from expunge.engine.slots.mask import Mask, all_trainable
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.world import sharding

CARD = {
    "id": "sure",
    "kind": "gradient",
    "summary": "Large steps on the units with the largest forget gradient, to outlast rounding.",
    "paper": "Catastrophic Failure of LLM Unlearning via Quantization (2024)",
    "needs": ["forget", "retain", "anchor"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step, before it 1 over the "
    "forget rows; a copy of the rows that do not move, with recompute 2 gradients in its place",
    "maturity": "paper",
    "version": 1,
    "loss_of": "grad-diff",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, what is forgotten by, and how many rows move."""

    lr: float | Literal["auto"] = param(
        "auto",
        help="learning rate; auto picks it by size, five times that of other methods",
        paper=5e-5,
        low=0.0,
    )
    objective: Literal["ga", "npo"] = param(
        "ga",
        help="forget term: gradient ascent, or negative preference optimisation",
        paper=["ga", "npo"],
        choices=("ga", "npo"),
    )
    beta: float = param(
        0.1, help="objective npo: sharpness; towards 0 it becomes ascent", paper=0.1, low=1e-6
    )
    percentile: float = param(
        90.0, help="rows below this percentile of all do not move", paper=90, low=0.0, high=100.0
    )
    recompute: bool = param(
        False, help="choose rows anew in every step, by its own forget gradient", paper=True
    )


def prepare(task: Task, params: Params) -> None:
    """Refuse to look at rows of which each process holds a piece.

    Raises:
        ExpungeError: ``E-USE-006``.
    """
    if params.recompute and sharding():
        raise ExpungeError(
            "E-USE-006",
            f"recompute=yes under {sharding()}, which gives each process a piece of the rows.",
            "whole rows in every process.",
            "Use data parallelism (torchrun without sharding), or leave recompute out.",
        )


def forget(step: Step, params: Params) -> Mean:
    """Ascent on tokens, or the log-odds of staying below the anchor on answers, nats."""
    if params.objective == "ga":
        return -step.forget.nll
    return row_preference(step.forget, params.beta)


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The rows of the original with the largest forget gradient."""
    around = all_trainable(model, task, params)
    if params.recompute:
        return around
    gradients = nll_gradients(task, "forget")
    may = {name: g for name, g in gradients.items() if around.get(name, True)}
    chosen = salient(may, transposed(model), params.percentile)
    task.record["share_that_moves"] = sum(int(m.sum()) for m in chosen.values()) / sum(
        g.numel() for g in gradients.values()
    )
    return {n: simplest(chosen[n]) if n in chosen else False for n in gradients}


def salient(
    gradients: Mapping[str, Tensor], columns: Collection[str], percentile: float
) -> dict[str, Tensor]:
    """The units whose gradient is at or above the percentile of all of them.

    Args:
        gradients: Name -> gradient.
        columns: Names of matrices stored [in, out].
        percentile: 0 to 100.

    Returns:
        Name -> bool tensor of the gradient's shape.
    """
    norms = unit_norms(gradients, columns)
    limit = np.percentile(torch.cat(list(norms.values())).cpu().numpy(), percentile)
    return {
        name: over_units((n >= limit) & (n > 0), gradients[name], is_transposed=name in columns)
        for name, n in norms.items()
    }


def combines(params: Params) -> bool:
    """Whether a step needs the gradients of its terms apart."""
    return params.recompute


def combine(gradients: Gradients, state: dict[str, Any], params: Params) -> list[Tensor]:
    """The weighted sum; with ``recompute`` only in the rows this step's forget gradient names."""
    whole = weighted_sum(gradients, state, params)
    if not params.recompute:
        return whole
    names, columns = _named(gradients)
    chosen = salient(dict(zip(names, gradients.forget, strict=True)), columns, params.percentile)
    return [g * chosen[name] for name, g in zip(names, whole, strict=True)]


def _named(gradients: Gradients) -> tuple[list[str], Collection[str]]:
    """Names of the parameters, and of those stored [in, out]."""
    again = gradients.again
    if again is None:
        return [str(place) for place in range(len(gradients.forget))], ()
    names = {id(p): name for name, p in again.task.model.named_parameters()}
    return [names[id(p)] for p in again.parameters], transposed(again.task.model)
