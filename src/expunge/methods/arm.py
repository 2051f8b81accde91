"""Adaptive representation misdirection: a target as long as the activations it replaces, times s.

Objective:
    L = gamma * mean_F( ||h_l - s n u||^2 / d ) + alpha * mean_R( ||h_l - h0_l||^2 / d )
    n = mean over the positions of the row of ||h0_l||

    Everything else is rmu's: u is the random unit vector of the row's topic, h0_l the output of
    block l under the anchor (d channels), and only the MLP outputs of blocks l-2, l-1 and l move.
    Activations grow from block to block; a target measured by them is long enough at every block,
    where rmu's fixed length stops working towards the top. n is a constant: no gradient passes it.

Reference: On Effects of Steering Latent Representation for Large Language Model Unlearning, 2024.

Departs from the paper:
    The paper measures each row (``norm_source=frozen_per_sample``); its code keeps one number for
    each topic, measured on the first batch of it (``first_batch``), for the second topic after one
    update has been made; ours are all measured on the original. Padding is never pushed, nor is
    the first position, which would also swell n (``include_bos`` brings it back). Rows of several
    topics share a step. The weight of the retain term is the one that small models take.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from expunge.core.families import SteeringParams
from expunge.core.params import param
from expunge.engine.mean import Mean
from expunge.engine.misdirection import lengths, mask, retain, steered
from expunge.engine.steering import (
    directions,
    distance,
    remember_topics,
    row_norms,
    topics_of,
)
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View

CARD = {
    "id": "arm",
    "kind": "gradient",
    "summary": "Misdirection whose target grows with the activations, so any block will do.",
    "paper": "On Effects of Steering Latent Representation for Large Language Model Unlearning "
    "(2024)",
    "needs": ["forget", "retain", "anchor-hidden"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step, not above the steered "
    "block; the anchor's outputs of that block are cached",
    "maturity": "paper",
    "version": 1,
}

__all__ = ["CARD", "Params", "forget", "mask", "prepare", "retain"]

NORMS = "arm.norms"


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(SteeringParams):
    """The shared parameters, the block, and how many times its activations' length to push."""

    retain_weight: float = param(
        30.0, help="weight of the retain term (alpha)", paper=1200, low=0.0
    )
    max_steps: int | None = param(
        None, help="most optimiser steps; none leaves it to epochs", paper=500, low=1
    )
    layer: int | None = param(
        None,
        help="steered block (l), negative from the top; none takes the one at 7/32 of the depth",
        paper="3 to 31",
    )
    scale: float = param(
        5.0, help="length of the target in lengths of the activations (s)", paper=5, low=0.0
    )
    norm_source: Literal["frozen_per_sample", "first_batch"] = param(
        "frozen_per_sample",
        help="what the target is measured by (n): the row under the anchor, or the first batch of "
        "its topic",
        paper="first_batch",
        choices=("frozen_per_sample", "first_batch"),
    )


def prepare(task: Task, params: Params) -> None:
    """Note the topics and, for ``first_batch``, how long the original's activations are."""
    remember_topics(task)
    if params.norm_source == "first_batch":
        task.state[NORMS] = lengths(task, params)


def forget(step: Step, params: Params) -> Mean:
    """Mean squared distance of forget activations to the target, per channel."""
    view = step.forget
    hidden, positions = steered(view, params)
    norms = natural(view, positions, step.state, params)
    target = params.scale * norms[:, None, None] * directions(view, step.state, hidden.shape[-1])
    return distance(hidden, target, positions)


def natural(view: View, positions: Tensor, state: Mapping[str, Any], params: Params) -> Tensor:
    """[B]: how long the activations of each row were before (n)."""
    if params.norm_source == "first_batch":
        norms = [state[NORMS][topic] for topic in topics_of(view, state)]
        return positions.new_tensor(norms, dtype=torch.float32)
    return row_norms(*steered(view.anchor, params))
