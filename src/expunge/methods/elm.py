"""Erasure of language memory: speak of a subject as somebody would who knows nothing of it.

Objective:
    L = gamma * tokenmean_F( CE(q_t, p_t) ) + alpha * positionmean_R( CE(argmax p0, p) )
        + w_y * tokenmean( nll of a fluent digression after the forget prompt )

    log q_t = log p0(. | x_<t) - eta_t * ( log p0(. | P+ x_<t) - log p0(. | P- x_<t) ) + const

    p0 is the anchor at ``temperature``; P+ says that an expert of the subject writes, P- that a
    novice does, who changes the subject. eta_t rises evenly from 1 at the first supervised token of
    a row to eta_max at the last. Of q the top_k tokens are kept. With P+ = P- it is p0. The
    digression is a sentence of evasion and what the anchor writes after it at an eta of
    ``guidance``.

Reference: Erasing Conceptual Knowledge from Language Models, 2024.

Departs from the paper:
    Rows ask and answer: what goes are their answers (of running text all of it), the digression
    follows the prompt (of running text the first half), and is written once for each row, before
    training; it stands in ``made/fluency.jsonl`` of the change. The templates are our own, one of
    ten drawn for each row and epoch. The subject is ``concept``, else the row's names. The retain
    term looks at the positions of ``kl_scope``; its soft form is retain_term=kl, which has the same
    gradient. Without ``--adapter lora`` the weights of the same blocks move themselves; adapters
    have no dropout.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.datasets import reply_with
from expunge.engine.digressions import EXPERT, NOVICE, digressions_of, subjects_of
from expunge.engine.made import made_once
from expunge.engine.mean import Mean, mean_of
from expunge.engine.slots import retain as shared
from expunge.engine.slots.mask import Mask, blocks_only
from expunge.engine.step import Step
from expunge.engine.task import Paired, Preface, Task
from expunge.lm.arch import Slots
from expunge.requests.rows import Row, Turn

CARD = {
    "id": "elm",
    "kind": "gradient",
    "summary": "Trains towards what the model would say of the subject if it were a novice.",
    "paper": "Erasing Conceptual Knowledge from Language Models (2024)",
    "needs": ["forget", "retain", "expert", "novice", "fluency", "anchor-logits"],
    "access": "weights",
    "cost": "1 forward and backward over forget, digression and retain rows per step; the anchor "
    "is cached; before training the model writes a digression for every forget row",
    "maturity": "paper",
    "version": 1,
    "trains": "adapter",
}

DEPTHS = (4 / 32, 8 / 32)
"""The paper changes blocks 4 to 7 of 32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the subject, and how far its knowledge is pushed away."""

    retain_term: str = param(
        "argmax",
        help="what keeps the rest; argmax trains on the anchor's most probable tokens",
        paper="argmax",
        choices=("argmax", "none", "nll", "kl", "mse"),
    )
    fluency_weight: float = param(1.0, help="weight of the digressions", paper=1, low=0.0)
    concept: str | None = param(
        None, help="what is to be forgotten, in a few words; none takes the names of each row"
    )
    eta_max: float = param(1000.0, help="eta at the last token of a row", paper=1000, low=0.0)
    temperature: float = param(1.2, help="of the anchor's logits", paper=1.2, low=0.01)
    top_k: int = param(50, help="tokens of the target that are kept", paper=50, low=1)
    guidance: float = param(3.0, help="eta with which digressions are written", paper=3, low=0.0)
    fluency_tokens: int = param(40, help="longest digression, in tokens", low=1)
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by size", paper=5e-5, low=0.0
    )
    max_steps: int | None = param(
        None, help="most optimiser steps; none leaves it to epochs", paper=3000, low=1
    )
    batch_size: int = param(16, help="forget rows of each part of a step", paper=1, low=1)
    layers: tuple[int, ...] | None = param(
        None,
        help="blocks that may move, negative from the top; none takes those from 4/32 to 8/32 of "
        "the depth",
        paper=[4, 5, 6, 7],
    )
    lora_r: int = param(256, help="rank of the adapter, when one is asked for", paper=256, low=1)
    lora_alpha: float = param(16.0, help="scale of the adapter: alpha / r", paper=16, low=0.0)


def layers_of(params: Params, blocks: int) -> tuple[int, ...]:
    """The blocks that move in a model with so many."""
    if params.layers is not None:
        return params.layers
    first, last = (round(depth * blocks) for depth in DEPTHS)
    return tuple(range(first, max(last, first + 1)))


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """Everything inside the chosen blocks."""
    return blocks_only(model, layers_of(params, len(Slots(model))))


def prepare(task: Task, params: Params) -> None:
    """Put the row after an expert's and a novice's preface, and a digression, beside each row."""
    subjects = subjects_of(task, params.concept)

    def digressions() -> list[dict[str, str]]:
        return digressions_of(
            task,
            subjects,
            guidance=params.guidance,
            top_k=params.top_k,
            new_tokens=params.fluency_tokens,
        )

    made = {found["id"]: found["reply"] for found in made_once(task, "fluency", digressions)}

    def prefaced(templates: tuple[str, ...]) -> Paired:
        def make(row: Row, wording: int, candidate: int) -> Preface:
            return Preface(templates[candidate].format(subject=subjects[row.id]))

        return Paired(make, count=len(templates))

    def fluent(row: Row, wording: int, candidate: int) -> Turn:
        return reply_with(row.turns[wording], made[row.id])

    task.paired["expert"], task.paired["novice"] = prefaced(EXPERT), prefaced(NOVICE)
    task.paired["fluency"] = Paired(fluent, count=1)


def forget(step: Step, params: Params) -> Mean:
    """Token mean of the cross-entropy to what the steered anchor would say."""
    _refuse_other_tokens(step)
    log_q, tokens = target(step, params).topk(min(params.top_k, step.forget.logits.shape[-1]))
    q = log_q.softmax(-1)
    logp = log_softmax(step.forget.logits, -1).gather(-1, tokens)
    return mean_of(-torch.where(q > 0, q * logp, 0.0).sum(-1))


def target(step: Step, params: Params) -> Tensor:
    """[N, V] float64: logarithm of q up to a constant, with no gradient."""
    plain, expert, novice = (
        log_softmax(view.anchor.logits.double() / params.temperature, -1)
        for view in (step.forget, step.expert, step.novice)
    )
    steered = plain - etas(step, params.eta_max)[:, None] * (expert - novice)
    # A token that the anchor rules out stays ruled out; the difference of two such is no number.
    return torch.where(plain.isinf() | steered.isnan(), -torch.inf, steered).detach()


def etas(step: Step, largest: float) -> Tensor:
    """[N]: from 1 at the first supervised token of each row evenly to ``largest`` at the last."""
    view = step.forget
    last = (view.lengths[view.inputs.batch_row] - 1).clamp(min=1)
    return 1 + (largest - 1) * view.position / last


def fluency(step: Step, params: Params) -> Mean:
    """Token-mean negative log-likelihood of the digressions, weighted."""
    return params.fluency_weight * step.fluency.nll


BESIDE = {"fluency": fluency}


def retain(step: Step, params: Params) -> Mean | None:
    """The anchor's own choices as labels, or a shared term."""
    if params.retain_term != "argmax":
        return shared.by_term(step, params)
    view = step.retain.over(params.kl_scope)
    return mean_of(cross_entropy(view.logits, view.anchor.logits.argmax(-1), reduction="none"))


def _refuse_other_tokens(step: Step) -> None:
    for view in (step.expert, step.novice):
        if not torch.equal(view.labels, step.forget.labels):
            raise ExpungeError(
                "E-MODEL-011",
                f"The forget rows have {len(step.forget.labels)} supervised tokens, and behind a "
                f"preface {len(view.labels)} or others.",
                "the same supervised tokens with and without a preface.",
                "Supervise the same tokens in the views forget, expert and novice.",
            )
