"""TAR: forget, then train against attackers who fine-tune the knowledge back in.

Objective:
    mapping, the first part of the run:
        L = alpha * RETAIN + gamma * positionmean_F( mean_l ( 1 - |cos(h_l, e(token))| ) )
    tampering, the rest of it:
        g = grad[ alpha * RETAIN + w_d * positionmean_R( mean_l ||h_l - h0_l|| ) ]
          + gamma * sum_i w_i * grad[ positionmean_F( -entropy ) ] at theta_i
        w_i = w_t * exp( growth * (i - (K - 1)) ),   i = every - 1, 2 * every - 1, ... < K

    l runs over what enters the first block and the outputs of all blocks, h0_l is h_l under the
    anchor, e a fixed Gaussian vector for each token, the same at all depths. theta_i are the
    weights after an attacker's i-th step of AdamW, of K that start at the weights as they are; the
    gradients there are taken as if they were taken here (first order), then the weights come back
    by copy. Each outer step has one attacker, drawn from three kinds with equal chance: on forget
    rows; on other forms of them; on retain rows up to a point, then on forget rows. His rate is one
    of three. ``progress`` decides the part: the first ``mapping`` of the steps map. With K = 0 the
    second part trains on what is kept alone.

Reference: Tamper-Resistant Safeguards for Open-Weight LLMs, 2024.

Departs from the paper:
    There the two parts are two programs, of 1000 and 750 steps; here they are one run, at one rate
    and with the run's own AdamW and schedule (the paper's is schedule-free). A stop level does not
    end the run, which would leave its second part out. Entropy and mapping run over real
    positions but the first of a row (``include_bos``), or those that predict the answer
    (``positions``), never over padding. The last hidden state is taken before the final norm. The
    second kind of attacker reads the rows' paraphrases; where there are none, the rows as running
    text (INFERRED). The entropy is taken on the forget rows of the outer step, which the attacker
    does not get to read, unless there are no others. ``inner_rates=auto`` scales the paper's rates
    to the size of the model as ``lr=auto`` does (INFERRED). What moves in the run is what attackers
    move. Rows to keep are compared with the anchor in the second part only.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.core.rng import derive, generator
from expunge.engine import rates, steering
from expunge.engine.mean import Mean, mean_of
from expunge.engine.slots import retain as shared
from expunge.engine.slots.combine import Again, Gradients
from expunge.engine.slots.sample import one_to_one
from expunge.engine.steering import positions_of, wide
from expunge.engine.step import Step
from expunge.engine.tampering import Attacker, Lessons, ramp, restored, tamper
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.hooks import EMBEDDING

CARD = {
    "id": "tar",
    "kind": "gradient",
    "summary": "Forgets, then learns to stay uncertain after simulated fine-tuning attacks.",
    "paper": "Tamper-Resistant Safeguards for Open-Weight LLMs (2024)",
    "needs": ["forget", "retain", "anchor-hidden"],
    "access": "weights",
    "cost": "mapping: 1 forward and backward over forget and 1 over retain rows per step; "
    "tampering: 64 steps of fine-tuning on 4 rows and 17 passes over the forget rows per step; "
    "7 values a weight held; the anchor's outputs of all blocks are cached where there is room",
    "maturity": "paper",
    "version": 1,
    "through": True,
}

STAGE, ATTACKED, TABLE, ENTROPY = "tar.stage", "tar.attacked", "tar.table", "tar.entropy"

MAPPING, TAMPERING = "mapping", "tampering"

RATES = (2e-6, 2e-5, 4e-5)
"""Rates of attackers on models of 0.5B parameters and more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the attackers, and how their harm is weighed."""

    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by size", paper=2e-5, low=0.0
    )
    batch_size: int = param(16, help="forget rows of each part of a step", paper=8, low=1)
    max_steps: int | None = param(
        None, help="most optimiser steps; none leaves it to epochs", paper=[1000, 750], low=1
    )
    mapping: float = param(
        0.5,
        help="share of the run that maps forget activations to random vectors",
        paper=0.57,
        low=0.0,
        high=1.0,
    )
    drift_weight: float = param(
        1.0, help="weight of the distance of retain activations (w_d)", paper=1, low=0.0
    )
    tamper_weight: float = param(
        4.0, help="weight of the certainty after attacks (w_t)", paper=4, low=0.0
    )
    inner_steps: int = param(64, help="steps of an attack (K); 0 is none", paper=64, low=0)
    inner_every: int = param(4, help="steps of an attack from look to look", paper=4, low=1)
    inner_batch: int = param(4, help="rows of a step of an attack", paper=4, low=1)
    inner_rates: tuple[float, ...] | Literal["auto"] = param(
        "auto",
        help="learning rates of attackers; auto scales the paper's to the size of the model",
        paper=[2e-6, 2e-5, 4e-5],
        low=0.0,
    )
    growth: float = param(
        0.0625, help="how the weight of a look grows with each step of the attack", paper=0.0625
    )
    bound: float | None = param(
        None,
        help="weighted sum of the looks, minus nats, below which they no longer count; none is no "
        "bound",
        paper=-11.76,
    )
    positions: Literal["all", "answer"] = param(
        "all",
        help="positions of forget rows: all, or those that predict the answer",
        paper="all",
        choices=("all", "answer"),
    )
    include_bos: bool = param(False, help="the first position of a row as well", paper=True)


def prepare(task: Task, params: Params) -> None:
    """Settle the seed of the random vectors.

    Raises:
        ExpungeError: ``E-USE-006`` where processes hold shards of the weights.
    """
    if task.world is not None and task.world.sharded:
        raise ExpungeError(
            "E-USE-006",
            "tar under FSDP: its attackers train the weights of one whole model.",
            "options that go together.",
            "Use data parallelism (torchrun without sharding).",
        )
    task.state.update({TABLE: derive(task.seed, "tar", "table"), ENTROPY: 0.0})


def forget(step: Step, params: Params) -> Mean:
    """The distance to the random vectors; in the second part how certain the model is."""
    view = step.forget
    stage = step.state[STAGE] = _stage(step, params)
    if ENTROPY in step.state:
        step.report("resistance", mean_of(torch.tensor([step.state[ENTROPY]])))
    at = positions_of(view, params.positions, include_first=params.include_bos)
    if stage == MAPPING:
        return mapped(view, at, int(step.state.get(TABLE, 0)))
    return certainty(view, at, params)


def retain(step: Step, params: Params) -> Mean | None:
    """The shared retain term, never at weights that are under attack."""
    if step.state.get(ATTACKED):
        return None
    return shared.by_term(step, params)


def drift(step: Step, params: Params) -> Mean | None:
    """Mean distance of all hidden states of retain rows to the anchor's, in the second part.

    Denominators are counted without a view to the part.
    """
    if "retain" not in step:
        return None
    view = step.retain
    rests = _stage(step, params) == MAPPING or step.state.get(ATTACKED)
    if rests and not view.is_counted:
        return None
    return params.drift_weight * steering.drift(view)


BESIDE = {"drift": drift}


def effort(params: Params) -> float:
    """How many plain steps a step takes on average: the second part simulates its attackers."""
    rows = 2 * params.batch_size * params.accumulation
    simulated = params.inner_steps * params.inner_batch / rows
    looks = params.inner_steps // params.inner_every
    return 1 + (1 - params.mapping) * (simulated + looks)


def combine(gradients: Gradients, state: dict[str, Any], params: Params) -> list[Tensor]:
    """The sum of both terms; in the second part with the gradient under attack as the first."""
    pushed = gradients.forget
    if state.get(STAGE) == TAMPERING:
        assert gradients.again is not None  # noqa: S101
        pushed = resisting(gradients.again, state, params)
    pairs = zip(pushed, gradients.retain, strict=True)
    return [params.forget_weight * f + params.retain_weight * r for f, r in pairs]


def resisting(again: Again, state: dict[str, Any], params: Params) -> list[Tensor]:
    """The gradients of certainty after steps of one attack, weighed and added up."""
    task, steps = again.task, params.inner_steps
    rng = generator(task.seed, "tar", again.step)
    attacker = Attacker.drawn(rng, _rates(task, params), steps)
    lessons = Lessons(task, set(one_to_one(task, params).draw(again.step).rows["forget"]))
    attack = tamper(
        again.parameters, attacker, lessons, rng, steps=steps, batch_size=params.inner_batch
    )
    total, weights = 0.0, 0.0
    buffer = [torch.zeros_like(parameter) for parameter in again.parameters]
    with restored(again.parameters):
        for step in attack:
            if (step + 1) % params.inner_every:
                continue
            weight = params.tamper_weight * ramp(step, steps, params.growth)
            found = _under_attack(again, state)
            for held, gradient in zip(buffer, found.forget, strict=True):
                held.add_(gradient, alpha=weight)
            total, weights = total + weight * found.values["forget"], weights + weight
    state[ENTROPY] = -total / weights if weights else 0.0
    if params.bound is not None and total < params.bound:
        return [held.zero_() for held in buffer]
    return buffer


def mapped(view: View, at: Tensor, table: int) -> Mean:
    """Position mean, over all depths, of ``1 - |cos|`` to the random vector of the token.

    Args:
        view: The rows.
        at: [B, T] bool, which positions count.
        table: Seed of the vectors.
    """
    layers = [EMBEDDING, *range(view.blocks)]
    states = view.hiddens(layers)
    aims = vectors_of(view.inputs.input_ids[at], table, states[EMBEDDING].shape[-1])
    away = [1 - cosine_similarity(wide(states[layer][at]), aims, dim=-1).abs() for layer in layers]
    return mean_of(torch.stack(away).mean(0))


def vectors_of(tokens: Tensor, table: int, width: int) -> Tensor:
    """[N, d]: the random vector of each of N tokens."""
    known = [vector(table, token, width) for token in tokens.tolist()]
    return torch.stack(known).to(tokens.device) if known else torch.zeros(0, width)


@lru_cache(maxsize=8192)
def vector(table: int, token: int, width: int) -> Tensor:
    """[d]: the random vector of a token, standard normal."""
    return torch.from_numpy(generator(table, "token", token).standard_normal(width)).float()


def certainty(view: View, at: Tensor, params: Params) -> Mean:
    """Minus the entropy of the next token, nats, a mean over the positions [B, T]."""
    seen = view if params.positions == "answer" else view.over("all_nonpad")
    logp = seen.logits[at[seen.mask]].log_softmax(-1)
    return mean_of((logp.exp() * logp).sum(-1))


def _stage(step: Step, params: Params) -> str:
    return MAPPING if step.progress < params.mapping else TAMPERING


def _under_attack(again: Again, state: dict[str, Any]) -> Gradients:
    """The gradients at weights under attack; that of what is kept is left out."""
    state[ATTACKED] = True
    try:
        return again.gradients()
    finally:
        del state[ATTACKED]


def _rates(task: Task, params: Params) -> tuple[float, ...]:
    if params.inner_rates != "auto":
        return params.inner_rates
    size = sum(parameter.numel() for parameter in task.model.parameters())
    adapted = any(".lora_" in name for name, _ in task.model.named_parameters())
    own = rates.learning_rate(replace(params, lr="auto"), size, adapter=adapted)
    return tuple(rate * own / RATES[1] for rate in RATES)
