"""Representation rerouting: turn the activations of forget text away from what they were.

Objective:
    L = alpha * (1 - p) * L_cb + alpha * p * L_ret,    p = share of the run that is done
    L_cb = positionmean_F( sum_{l in T} relu( cos(h_l, h0_l) ) )
    L_ret = mean_R over positions and all hidden states of ||h - h0||

    h0 is the same under the anchor. Once an activation stands at a right angle to what it was,
    nothing pushes it further. The norm of the retain term is not squared, and its states run from
    what enters the first block to what leaves the last. At the start its weight is 0: the first
    steps destroy freely and the rest of the run repairs, so a run that is cut short has kept
    nothing (a stop level ends only the forget term; what repairs goes on).

Reference: Improving Alignment and Robustness with Circuit Breakers, 2024.

Departs from the paper:
    Means run over real positions, not padding. The first position, where most models keep an
    activation far larger than all others, is left alone (``include_bos`` brings it back). The
    last hidden state is taken before the final norm. Without ``--adapter lora`` the weights of
    blocks 0 to max(T) themselves move; adapters have no dropout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.mean import Mean, mean_of
from expunge.engine.slots import retain as shared
from expunge.engine.slots.mask import Mask, blocks_only
from expunge.engine.steering import at_depth, drift, positions_of, wide
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.arch import Slots

CARD = {
    "id": "rr",
    "kind": "gradient",
    "summary": "Turns forget activations to a right angle from what they were, then repairs.",
    "paper": "Improving Alignment and Robustness with Circuit Breakers (2024)",
    "needs": ["forget", "retain", "anchor-hidden"],
    "access": "weights",
    "cost": "1 forward and backward over forget rows, up to the highest target block, and over "
    "retain rows, through all blocks, per step; the anchor's outputs of all these blocks are "
    "cached where there is room, else 1 forward of the anchor over the same rows",
    "maturity": "beta",
    "version": 1,
    "trains": "adapter",
}

DEPTHS = (10 / 32, 20 / 32)
"""The paper reroutes blocks 10 and 20 of 32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters and the blocks that are rerouted."""

    forget_weight: float = param(
        10.0, help="weight of the forget term (alpha), which falls to 0", paper=10, low=0.0
    )
    retain_weight: float = param(
        10.0, help="weight of the retain term (alpha), which rises from 0", paper=10, low=0.0
    )
    retain_term: str = param(
        "norm",
        help="what keeps the rest; norm is the distance of all hidden states",
        paper="norm",
        choices=("norm", "none", "nll", "kl", "mse"),
    )
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by size", paper=1e-4, low=0.0
    )
    batch_size: int = param(16, help="forget rows of each part of a step", paper=16, low=1)
    max_steps: int | None = param(
        None, help="most optimiser steps; none leaves it to epochs", paper=150, low=1
    )
    lora_r: int = param(16, help="rank of the adapter, when one is asked for", paper=16, low=1)
    lora_alpha: float = param(16.0, help="scale of the adapter: alpha / r", paper=16, low=0.0)
    target_layers: tuple[int, ...] | None = param(
        None,
        help="rerouted blocks (T), negative from the top; none takes those at 10/32 and 20/32 of "
        "the depth",
        paper=[10, 20],
    )
    positions: Literal["all", "answer"] = param(
        "all",
        help="which positions of forget rows are rerouted: all, or those that predict the answer",
        paper="all",
        choices=("all", "answer"),
    )
    include_bos: bool = param(False, help="reroute the first position of a row as well", paper=True)


def targets_of(params: Params, blocks: int) -> Sequence[int]:
    """The rerouted blocks of a model with so many."""
    if params.target_layers is not None:
        return params.target_layers
    return sorted({at_depth(depth, blocks) for depth in DEPTHS})


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """Everything inside the blocks up to the highest target (or inside ``layers``)."""
    slots = Slots(model)
    top = max(slots.index(layer) for layer in targets_of(params, len(slots)))
    return blocks_only(model, params.layers or range(top + 1))


def forget(step: Step, params: Params) -> Mean:
    """Position mean of the cosines that are still positive, summed over the target blocks."""
    view = step.forget
    layers = targets_of(params, view.blocks)
    now, before = view.hiddens(layers), view.anchor.hiddens(layers)
    at = positions_of(view, params.positions, include_first=params.include_bos)
    cosines = [
        cosine_similarity(wide(now[layer][at]), wide(before[layer][at]), dim=-1).relu()
        for layer in layers
    ]
    return (1 - step.progress) * mean_of(torch.stack(cosines).sum(0))


def retain(step: Step, params: Params) -> Mean | None:
    """The distance of the hidden states, or a shared term; its weight rises with the run."""
    term = drift(step.retain) if params.retain_term == "norm" else shared.by_term(step, params)
    return None if term is None else step.progress * term
