"""SSPU: misdirection along features that have nothing to do with the topic.

Objective:
    L = gamma * mean_F( ||h_l - c u||^2 / d ) + alpha * mean_R( ||h_l - h0_l||^2 / d )
        + lambda * sum_W || (I - U+ U+^T) (W - W0) ||^2 / ||W0||^2
    s_j = E_F[ z_j ] - E_R[ z_j ]   (or E_F[ z_j^2 ] / E_R[ z_j^2 ]),   z the code of h0_l
    J+  = the K latents with the largest s_j,    J- = the K with the smallest that fire on R
    U+  = basis of D[J+],    U- = basis of (I - U+ U+^T) D[J-],    u = U- U-^T r / ||U- U-^T r||

    D are the rows of the decoder of a sparse autoencoder of block l, r is rmu's random vector, W
    are the output matrices of the MLPs of blocks l-2, l-1 and l. Activations are sent where no
    feature of the topic points, and the weights that do it may write to those features alone.
    Bases are made by pivoted QR: directions that add less than 1e-6 to those before are left out.
    l is, of ``candidates``, the block whose K best scores have the largest sum. With ``subspace=
    whole`` and lambda = 0 it is rmu, bit for bit.

Reference: Model Unlearning via Sparse Autoencoder Subspace Guided Projections, 2025.

Departs from the paper:
    INFERRED, since its text was not at hand: all formulas above, K, lambda, and that r is drawn
    once (``redraw=step`` draws it anew in every step). Of a file it reads the one block; without
    one it trains an autoencoder on the rows for each candidate, and compares their scores in mean
    lengths of a state, because activations grow from block to block. c is by default ``scale``
    times the mean length of the activations it replaces, as in arm; the paper's 200 for Gemma 2 is
    ``steering=200``. The slope of the penalty is added to the gradient of the whole step. While
    the forget term rests so does the penalty. The penalty and the push work against one another,
    since u lies outside the subspace: in models of four blocks the rule for l chooses a low block,
    where weights that stay inside cannot forget; block 2 can (``layer``). First tokens count
    neither in scores nor in what is pushed (``include_bos``). The share of the update that lies
    outside the subspace is measured at the end; from a half on, the run says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.events import note
from expunge.core.families import CoderParams
from expunge.core.params import param
from expunge.core.rng import derive
from expunge.engine import misdirection
from expunge.engine.features import unfit
from expunge.engine.finish import Finishing
from expunge.engine.mean import Mean
from expunge.engine.misdirection import lengths, steered
from expunge.engine.slots.combine import Gradients, weighted_sum
from expunge.engine.slots.mask import Mask
from expunge.engine.steering import SEED, directions, distance, remember_topics, topics_of
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.arch import Slots
from expunge.methods.sspu.settling import AWAY, TOPIC, placed, settle, start_of, topic_of
from expunge.methods.sspu.subspaces import Matrices, within

CARD = {
    "id": "sspu",
    "kind": "gradient",
    "summary": "Misdirects along features that are not of the topic; weights move in its own.",
    "paper": "Model Unlearning via Sparse Autoencoder Subspace Guided Projections (2025)",
    "needs": ["forget", "retain", "anchor-hidden"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step, not above the steered "
    "block; before training 1 forward over them and an autoencoder for each candidate block; the "
    "anchor's outputs of that block are cached",
    "maturity": "paper",
    "version": 1,
}

__all__ = ["CARD", "Params", "combine", "finish", "forget", "mask", "prepare", "retain", "unfit"]

LENGTHS = "sspu.lengths"

HALF = 0.5
"""Share of the update outside the subspace from which on it is named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(CoderParams):
    """The autoencoder, its latents, and what is done along them."""

    retain_term: str = param(
        "mse",
        help="what keeps the rest; mse compares the steered block, unless mse_layer is given",
        paper="mse",
        choices=("none", "nll", "kl", "mse"),
    )
    retain_weight: float = param(
        30.0, help="weight of the retain term (alpha)", paper=1200, low=0.0
    )
    max_steps: int | None = param(
        None, help="most optimiser steps; none leaves it to epochs", low=1
    )
    layer: int | None = param(
        None, help="steered block (l), negative from the top; none chooses among candidates"
    )
    candidates: tuple[int, ...] | None = param(
        None, help="blocks to choose among; none takes those at 1/8, 1/4, 3/8 and 1/2 of the depth"
    )
    features: int | None = param(
        None,
        help="latents of each kind (K); none takes d / 8, at most 64",
        paper="10 to 100",
        low=1,
    )
    score: Literal["difference", "ratio"] = param(
        "difference",
        help="what ranks latents: the difference of mean activations, or the ratio of mean squares",
        choices=("difference", "ratio"),
    )
    subspace: Literal["features", "whole"] = param(
        "features",
        help="where u lies: among features that are not of the topic, or anywhere (rmu)",
        paper="features",
        choices=("features", "whole"),
    )
    redraw: Literal["never", "step"] = param(
        "never",
        help="whether r is drawn once, or anew in every step",
        choices=("never", "step"),
    )
    steering: float | Literal["auto"] = param(
        "auto",
        help="length of the vector activations are pushed onto (c); auto measures them",
        paper=200,
        low=0.0,
    )
    scale: float = param(
        5.0, help="steering=auto: c in mean lengths of the activations", paper=5, low=0.0
    )
    lambda_reg: float = param(
        5.0, help="weight of the update outside the subspace of the topic (lambda)", low=0.0
    )
    positions: Literal["all", "answer"] = param(
        "all",
        help="which positions of forget rows are pushed: all, or those that predict the answer",
        paper="all",
        choices=("all", "answer"),
    )
    include_bos: bool = param(False, help="push the first position of a row as well", paper=True)


def prepare(task: Task, params: Params) -> None:
    """Note the topics, choose block and latents, measure what is pushed."""
    remember_topics(task)
    settle(task, params)
    own = placed(params, task.state, len(Slots(task.model)))
    if params.steering == "auto":
        task.state[LENGTHS] = lengths(task, own)


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The MLP output matrices of the steered block and the two below it (or of ``layers``)."""
    settle(task, params)
    return misdirection.mask(model, task, placed(params, task.state, len(Slots(model))))


def forget(step: Step, params: Params) -> Mean:
    """Mean squared distance of forget activations to the control vector, per channel."""
    view = step.forget
    hidden, positions = steered(view, placed(params, step.state, view.blocks))
    return distance(hidden, target(step, hidden.shape[-1], params), positions)


def retain(step: Step, params: Params) -> Mean | None:
    """The shared retain term; ``mse`` compares the steered block."""
    return misdirection.retain(step, placed(params, step.state, step.retain.blocks))


def target(step: Step, width: int, params: Params) -> Tensor:
    """[B, 1, d]: the control vector of each row (c u)."""
    state = step.state
    if params.redraw == "step":
        state = {**state, SEED: derive(int(state.get(SEED, 0)), "step", step.index)}
    unit = directions(step.forget, state, width)
    if AWAY in step.tensors:
        away = step.tensors[AWAY].to(unit.device)
        unit = torch.stack([within(one, away) for one in unit])  # alike in batches of every size
    if params.steering != "auto":
        return params.steering * unit
    return params.scale * measured(step.forget, state)[:, None, None] * unit


def measured(view: View, state: Mapping[str, Any]) -> Tensor:
    """[B]: how long the activations of each row's topic are; 1 where nobody has measured."""
    known = state.get(LENGTHS, {})
    found = [known.get(topic, 1.0) for topic in topics_of(view, state)]
    return torch.tensor(found, device=view.inputs.input_ids.device)


def combines(params: Params) -> bool:
    """Whether the penalty has a slope to be added."""
    return params.lambda_reg > 0


def combine(gradients: Gradients, state: dict[str, Any], params: Params) -> list[Tensor]:
    """The weighted sum, with the slope of the penalty where matrices have left the subspace."""
    whole, again = weighted_sum(gradients, state, params), gradients.again
    if again is None or TOPIC not in again.task.tensors:
        return whole
    before = start_of(again.task)
    weights = list(again.parameters)
    with torch.enable_grad():
        penalty = Matrices(again.task.model, list(before)).penalty(before, topic_of(again.task))
        slopes = torch.autograd.grad(params.lambda_reg * penalty, weights, allow_unused=True)
    return [g if s is None else g + s.to(g) for g, s in zip(whole, slopes, strict=True)]


def finish(change: Finishing, params: Params) -> None:
    """Measure how much of the update lies outside the subspace."""
    task = change.task
    if TOPIC not in task.tensors:
        return
    before = start_of(task)
    share = Matrices(task.model, list(before)).share_outside(before, topic_of(task))
    change.record["outside"] = share
    if params.lambda_reg and share >= HALF:
        note(
            f"sspu: {share:.2f} of the length of the update lies outside the features of the "
            "topic. Raise lambda_reg, or features (--set lambda_reg=...).",
            outside=share,
        )
