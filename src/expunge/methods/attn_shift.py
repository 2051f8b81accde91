"""Attention shifting: look away from the words that carry what is to be forgotten.

Objective:
    L = gamma * a * L_shift + alpha * (1 - a) * L_keep
    L_shift = mean over blocks, heads and positions of F of  KL( A || aim(A0, 1 - lambda) )
    L_keep  = mean over blocks, heads and positions of R of  KL( A || aim(A0, 1 + reinforcement) )
    aim(A0, c)_ij = A0_ij c_j / sum_k A0_ik c_k,   c_j = c where token j is important, else 1
    a = L_shift / (L_shift + L_keep), held between 0.2 and 0.8, with no gradient; or a fixed number

    A_ij is how much position i looks at position j, A0 the same under the anchor. Important are
    the content words of a row, at most ``share`` of its tokens; the first position never is,
    because it takes what the others lose. The model stands first in the divergence, so what looks
    at a word far more than it should is pushed hardest. Only query and key projections move. There
    is no refusal to learn and no loss on what is said: a model that cannot look at the subject has
    nothing to say of it. What was known stays in the other weights, so traces are to be expected.

Reference: Wisdom is Knowing What not to Say: Hallucination-Free LLMs Unlearning via Attention
Shifting, 2025.

Departs from the paper:
    INFERRED, since its formulas were reconstructed from prose: the factor of the retain rows' words
    (1.1), the schedule of ``a`` and its bounds, and of ``scorer=entropy`` that a token is hidden
    from attention and the changes after it are averaged. Content words are told by lists and by
    rarity, not by a tagger. Without ``--adapter lora`` the two projections themselves move. The
    run ends at the stop level, not at a forget accuracy; a step draws as many retain rows as forget
    rows, from all of them. Optimiser settings are the engine's. ``retain_term`` may be a shared one
    instead, which the paper found worse.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.attention import query_and_key_only
from expunge.engine.datasets import Datasets
from expunge.engine.importance import (
    content_places,
    entropy_places,
    flags_of,
    important,
)
from expunge.engine.keyed import key_of
from expunge.engine.made import made_once
from expunge.engine.mean import Mean, mean_of
from expunge.engine.slots import retain as shared
from expunge.engine.slots.combine import Gradients
from expunge.engine.slots.mask import Mask
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.arch import Slots

CARD = {
    "id": "attn-shift",
    "kind": "gradient",
    "summary": "Moves attention off the content words of forget rows, by queries and keys alone.",
    "paper": "Wisdom is Knowing What not to Say: Hallucination-Free LLMs Unlearning via Attention "
    "Shifting (2025)",
    "needs": ["forget", "retain", "anchor-attention"],
    "access": "weights",
    "cost": "1 forward and backward over forget and 1 over retain rows per step, and 1 forward of "
    "the anchor over both; blocks x heads x length^2 numbers a row are held: keep rows under 200 "
    "tokens; with scorer=entropy, before training, 1 forward for every token of every row",
    "maturity": "paper",
    "version": 1,
}

IMPORTANT, SHARE_OF_FORGET = "attn-shift.important", "attn-shift.alpha"

EPSILON = 1e-12
"""Added inside the logarithm: what no position may look at is 0 on both sides."""

BOUNDS = (0.2, 0.8)
"""Between which the share of the forget side moves (INFERRED)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, what counts as important, and how far attention moves."""

    suppression: float = param(
        0.99,
        help="share of the attention to important tokens that is taken away (lambda); from 0.2 to "
        "0.8 the paper's models forget and hallucinate",
        paper=0.99,
        low=0.0,
        high=1.0,
    )
    reinforcement: float = param(
        0.1, help="by what share retain rows look at their important tokens more", low=0.0
    )
    share: float = param(
        0.6, help="most of a row's tokens that count as important", paper=0.6, low=0.01, high=0.99
    )
    scorer: Literal["content", "entropy"] = param(
        "content",
        help="what makes a token important: content words, or by how much the uncertainty of what "
        "follows changes without it (for noisy text)",
        paper=["content", "entropy"],
        choices=("content", "entropy"),
    )
    alpha: float | Literal["dynamic"] = param(
        "dynamic",
        help="share of the forget side in the step; dynamic gives more to the larger loss",
        paper=["dynamic", 0.2, 0.8],
        low=0.0,
        high=1.0,
    )
    retain_term: str = param(
        "attention",
        help="what keeps the rest; attention compares the maps",
        paper="attention",
        choices=("attention", "none", "nll", "kl", "mse"),
    )
    lr: float | Literal["auto"] = param(
        "auto",
        help="learning rate; auto picks it by size; the paper's 5e-4 is an adapter's, which is ten "
        "times that of weights",
        paper=5e-5,
        low=0.0,
    )
    epochs: int | None = param(
        None, help="passes over the forget set; none leaves it to max_steps", paper=24, low=1
    )
    batch_size: int = param(16, help="forget rows of each part of a step", paper=4, low=1)
    lora_r: int = param(32, help="rank of the adapter, when one is asked for", paper=32, low=1)


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """Query and key projections (of ``layers``)."""
    return query_and_key_only(model, params.layers or range(len(Slots(model))))


def prepare(task: Task, params: Params) -> None:
    """Note the important tokens of every row."""

    def found() -> list[dict[str, Any]]:
        datasets = Datasets(task, device=str(task.model.device))
        roles = [role for role in ("forget", "retain") if task.roles.get(role)]
        items = [item for role in roles for row in datasets.items(role) for item in row]
        rows = [item.ids for item in items]
        if params.scorer == "content":
            places = content_places(task.tokenizer, rows, params.share)
        else:
            places = entropy_places(task.model, rows, params.share)
        return [
            {"row": key_of(ids), "important": flags_of(chosen)}
            for ids, chosen in zip(rows, places, strict=True)
        ]

    task.state[IMPORTANT] = {
        one["row"]: one["important"] for one in made_once(task, "important", found)
    }


def forget(step: Step, params: Params) -> Mean:
    """How far attention on forget rows is from looking away, nats a position."""
    if SHARE_OF_FORGET in step.state:
        share = torch.tensor([step.state[SHARE_OF_FORGET]], dtype=torch.float64)
        step.report("alpha", mean_of(share))
    return _distance(step.forget, step.state, 1 - params.suppression)


def retain(step: Step, params: Params) -> Mean | None:
    """How far attention on retain rows is from looking a little harder, or a shared term."""
    if params.retain_term != "attention":
        return shared.by_term(step, params)
    return _distance(step.retain, step.state, 1 + params.reinforcement)


def combine(gradients: Gradients, state: dict[str, Any], params: Params) -> list[Tensor]:
    """``gamma * a * forget + alpha * (1 - a) * retain``."""
    share = share_of_forget(gradients.values["forget"], gradients.values["retain"], params)
    state[SHARE_OF_FORGET] = share
    pairs = zip(gradients.forget, gradients.retain, strict=True)
    return [
        params.forget_weight * share * f + params.retain_weight * (1 - share) * r for f, r in pairs
    ]


def share_of_forget(forget: float, retain: float, params: Params) -> float:
    """The share of the forget side in a step with these losses."""
    if params.alpha != "dynamic":
        return float(params.alpha)
    both = forget + retain
    return min(max(forget / both if both else 0.5, BOUNDS[0]), BOUNDS[1])


def target(maps: Tensor, flags: Tensor, factor: float) -> Tensor:
    """What attention is to become: weights of important tokens changed, rows made 1 again.

    Args:
        maps: [B, heads, T, T], of the anchor; 0 where a position sees nothing, and so it stays.
        flags: [B, T] bool, the important tokens.
        factor: Of their weights.
    """
    changed = maps * torch.where(flags, factor, 1.0).to(maps.dtype)[:, None, None, :]
    return changed / changed.sum(-1, keepdim=True).clamp(min=EPSILON)


def divergence(now: Tensor, before: Tensor, flags: Tensor, factor: float) -> Tensor:
    """[B, T]: KL(attention || target), a mean over the heads of one block, nats."""
    aim = target(before, flags, factor)
    return (now * ((now + EPSILON) / (aim + EPSILON)).log()).sum(-1).mean(1)


def _distance(view: View, state: dict[str, Any], factor: float) -> Mean:
    """The divergence over all blocks, heads and real positions of a view.

    Of each block only its two maps are held; the rest is computed again in the backward pass.
    """
    flags = important(view, state.get(IMPORTANT, {}))
    before, now = view.anchor.attention, view.attention
    once: Any = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    blocks = [once(divergence, *maps, flags, factor) for maps in zip(now, before, strict=True)]
    return mean_of(torch.stack(blocks).mean(0)[view.inputs.attention_mask.bool()])
