"""ULD: a small assistant learns the opposite, and its logits are taken away from the model's.

Objective:
    L = gamma * tokenmean_F( -log a(y_t) ) + alpha * mean over positions of R, W of KL( U || a_t )
    KL( U || a_t ) = mean_v( -log a_t(v) ) - log V

    a is the assistant: the first blocks of the model with its embedding, final norm and head,
    and low-rank factors on the linears of these blocks, which alone move. It learns the forget
    rows (F) in all their wordings, and to know nothing of the retain rows (R) and of forget
    prompts with wrong answers (W). The model itself neither moves nor runs.

    In use:  z = z_model + w * [ v in S ] * z_a,    w < 0
    S = { v : log p_model(v) >= min( log p of rank ceil(t V), max_v log p + log t ) }

    ``center`` takes the mean over v from z_a first: what is outside S counts as 0, so a constant
    in z_a moves S against the rest. ``weight=0`` leaves the model's logits as they are, bit for
    bit.

    The assistant is a run-time part of the change, and `expunge.load` attaches it. The weights of
    the change are the original's and remember everything, and so does the assistant, which knows
    little else: whoever holds the folder holds the facts. An audit runs with the part and past it.
    ``made/assistant`` of the change is the assistant as a model of its own, for other servers.

Reference: Reversing the Forget-Retain Objectives: An Efficient LLM Unlearning Framework from Logit
Difference, 2024.

Departs from the paper:
    KL is taken at every real position, prompts included. The original code also averages over
    padding to full length, which dilutes it (``kl_scope=legacy_all``: the padding that there is),
    and counts wrongly answered rows where forget rows teach the very opposite, before the first
    wrong token (``disputed``): with short answers nothing is remembered then, so nothing forgotten.
    A step has as many retain rows as forget rows, as there, and ``altered`` wrong answers to each
    forget row beside them, where the code mixes all rows that are to be uniform; R and W share one
    mean. The code counts two paraphrases of a row as rows of their own; ours draws one of all its
    wordings in every epoch. The code gives both models one cache, which neither can use; here each
    has its own. Dropout is a function of seed, step, row and position: no cut of a step changes
    it. Activation checkpointing does not concern the assistant.
    INFERRED: models with less than 32 blocks give a quarter of them; a row without wrong answers
    of its own gets values of other rows; the run may stop at the level of rows never seen
    (``--stop-at``), which is measured with the assistant. Training shares the model's weights; the
    part then holds the assistant with its factors multiplied out, in the precision of the model.
    Of tiny models the paper's settings leave much: on the testbed (1.1M parameters, an assistant of
    one block of four, 240 steps) the assistant ends at a probability of .18 on its own rows, and
    subtracting it leaves the model at .75 of .96 on forget and .88 on retain rows. With ``lr=0.02
    weight=-1`` it is .30 and .95, and .16 and .95 after 480 steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.assistants import Ensemble
from expunge.engine.counts import Voices, adapter_weights
from expunge.engine.finish import Finishing
from expunge.engine.mean import Mean, mean_of
from expunge.engine.runtime import Attached, Part
from expunge.engine.small_models import built, fitting, size_beside, write
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.folder import Folder
from expunge.methods.uld.altered import put_beside
from expunge.methods.uld.assistant import ASSISTANT, Assistant, Subtracting, alone, assistant_of

CARD = {
    "id": "uld",
    "kind": "gradient",
    "summary": "Subtracts the logits of a small assistant that remembers what is to be forgotten.",
    "paper": "Reversing the Forget-Retain Objectives: An Efficient LLM Unlearning Framework from "
    "Logit Difference (2024)",
    "needs": ["forget", "retain", "alternate"],
    "access": "weights",
    "cost": "1 forward and backward of the assistant alone over forget, retain and wrongly "
    "answered rows per step; in use the assistant reads every token as well",
    "maturity": "paper",
    "version": 1,
    "trains": "adapter",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, those of the assistant, and how it is subtracted."""

    retain_weight: float = param(
        5.0, help="weight of knowing nothing of the rest (alpha)", paper=5, low=0.0
    )
    retain_term: str = param(
        "uniform", help="what the assistant says of the rest", choices=("uniform", "none")
    )
    lr: float | Literal["auto"] = param(
        1e-3,
        help="learning rate, of models of any size; auto raises it for small ones",
        paper=1e-3,
        low=0.0,
    )
    batch_size: int = param(8, help="forget rows of each part of a step", paper=8, low=1)
    weight_decay: float = param(0.01, help="decoupled weight decay", paper=0.01, low=0.0)
    lora_r: int = param(16, help="rank of the assistant's factors", paper=16, low=1)
    lora_alpha: float = param(
        32.0, help="scale of the assistant's factors: alpha / r", paper=32, low=0.0
    )
    dropout: float = param(
        0.05, help="share of what enters the factors that is left out", paper=0.05, low=0.0,
        high=0.9,
    )  # fmt: skip
    blocks: int | None = param(
        None,
        help="first blocks of the model that are the assistant's; none takes 8, of less than 32 "
        "a quarter",
        paper=8,
        low=1,
    )
    altered: int = param(2, help="wrong answers beside each forget row (W)", paper=2, low=0, high=8)
    disputed: bool = param(
        False,
        help="count wrongly answered rows also where forget rows teach the opposite: in the answer "
        "before its first wrong token",
        paper=True,
    )
    weight: float = param(
        -0.8, help="factor of the assistant's logits (w)", paper=[-0.8, -0.5, -0.7]
    )
    top: float = param(
        0.01,
        help="how far from the likeliest token the assistant is heard, relative (t); 0: anywhere",
        paper=0.01,
        low=0.0,
        high=1.0,
    )
    center: bool = param(False, help="take the mean from the assistant's logits", paper=False)


def needs(params: Params) -> Sequence[str]:
    """What is looked at: what is kept only where it is, wrong answers only where there are some."""
    if params.retain_term == "none":
        return ["forget"]
    return ["forget", "retain", *(["alternate"] if params.altered else [])]


def unfit(params: Params, folder: Folder) -> list[ExpungeError]:
    """Why a model has no such assistant, known before its weights load."""
    return fitting(folder, None, params.blocks)


def voices(params: Params, folder: Folder) -> Voices:
    """What an estimate has to know of the assistant: it shares its weights with the model."""
    size = size_beside(folder, None, params.blocks)
    blocks = size.blocks if params.layers is None else len(params.layers)
    factors = adapter_weights(params.lora_r, blocks, size.width)
    return Voices(
        sizes=(size,),
        trained=factors,
        own=factors,
        alone=True,
        adapter=True,
        each={"alternate": params.altered},
        wide=("retain", "alternate"),
    )


mask = "nothing"
"""What is trained stands beside the model."""


def prepare(task: Task, params: Params) -> None:
    """Put the assistant beside the model, and wrong answers beside the forget rows."""
    if params.altered:
        put_beside(task, params.altered)
    Assistant.made(task, params).put_in(task.model, named=True)


def forget(step: Step, params: Params) -> Mean:
    """Token-mean negative log-likelihood of the forget answers under the assistant, nats."""
    return alone(step, "forget", params).nll


def retain(step: Step, params: Params) -> Mean | None:
    """Mean divergence of the assistant from a guess, over the rows of which it is to say none."""
    if params.retain_term == "none":
        return None
    means = []
    for name in ("retain", "alternate"):
        if name in step:
            view = alone(step, name, params).over(params.kl_scope)
            counted = ~disputed(step, name, params)[view.mask]
            means.append(mean_of(from_a_guess(view.logits), counted.to(view.logits.dtype)))
    return reduce(Mean.__add__, means)


def disputed(step: Step, name: str, params: Params) -> Tensor:
    """[B, T] bool: where a row with a wrong answer reads as a forget row that says the opposite.

    It does at the positions that predict its answer, up to the first wrong token.
    """
    view = getattr(step, name)
    if name == "retain" or params.disputed or "forget" not in step:
        return torch.zeros_like(view.mask)
    ids, own = view.inputs.input_ids, step.forget.inputs.input_ids
    own = own.repeat_interleave(max(1, len(ids) // len(own)), 0)
    length = min(ids.shape[1], own.shape[1])
    alike = (ids[:, :length] == own[:, :length]).cumprod(1).bool()
    found: Tensor = pad(alike, (0, ids.shape[1] - length)) & view.mask
    return found


def from_a_guess(logits: Tensor) -> Tensor:
    """``KL(U || p) = mean_v( -log p(v) ) - log V``, nats.

    Args:
        logits: [..., V], at least float32.

    Returns:
        [...].
    """
    size = torch.tensor(float(logits.shape[-1]), dtype=logits.dtype, device=logits.device)
    return -logits.log_softmax(-1).mean(-1) - size.log()


def finish(change: Finishing, params: Params) -> None:
    """Take the assistant out of the model: it is the run-time part of the change."""
    assistant = assistant_of(change.model)
    assert assistant is not None  # noqa: S101
    change.runtime = assistant.part(change.task.forget)
    write(
        change.task, ASSISTANT, change.runtime.settings[ASSISTANT], change.runtime.tensors
    )  # fmt: skip
    assistant.take_out(change.model)


def attach(model: PreTrainedModel, part: Part) -> Attached:
    """Subtract the logits of a trained assistant from those of a model.

    Raises:
        ValueError: When it is not made for it.
    """
    told: Any = part.settings
    rule = Subtracting(float(told["weight"]), float(told["top"]), bool(told["center"]))
    voices = {ASSISTANT: built(told[ASSISTANT], part.tensors, model)}
    return Attached(Ensemble(model, voices, rule).put_in(model))
