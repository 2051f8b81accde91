"""ROME: one association after another, each by a change of rank one to one matrix.

Objective:
    W <- W + (v* - v) u^T / (u . k),      u = C^-1 k*

    W is the output matrix of one MLP, k its input at the place of the bare prompt, v its output
    there, k* the mean of k over the prompt behind several texts, C the second moment of keys over
    other text. v* makes the prompt lead to what is to be said: see `expunge.engine.editing.values`.
    The edited prompt then gives v* exactly, and of all changes that do so this one moves the
    outputs of other keys least.

    Unlearning by it means that what is to be said is a refusal (``target``). Edits one after the
    other wear a model out; ``merge`` puts several prompts with one target into one edit.

Reference: Locating and Editing Factual Associations in GPT, 2022; as unlearning in Editing as
Unlearning: Are Knowledge Editing Methods Strong Baselines for LLM Unlearning?, 2025.

Departs from the paper:
    C is taken over the retain rows, or over ``corpus``, never over a download, and gets a ridge of
    1e-4 of its mean eigenvalue. Where no name stands in a prompt, and where ``fact_token`` and
    ``layer`` find that values are easier there, the last token before the answer is edited
    (INFERRED). What is to be said includes the end of the turn. The prompts of
    ``target=self`` are INFERRED.
"""

from dataclasses import dataclass

from transformers import PreTrainedModel

from expunge.core.families import EditParams
from expunge.core.params import param
from expunge.engine.editing.editors import one_by_one
from expunge.engine.editing.locating import planned, rewriting
from expunge.engine.editing.wording import contexts_of
from expunge.engine.finish import Finishing
from expunge.engine.slots.mask import Mask, mlp_outputs_only
from expunge.engine.task import Task
from expunge.lm.arch import Slots

CARD = {
    "id": "rome",
    "kind": "edit",
    "summary": "Rewrites one association after another to a refusal, by changes of rank one.",
    "paper": "Locating and Editing Factual Associations in GPT (2022)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "25 forwards and backwards over 21 prompts for each forget row; 1 pass over the texts "
    "of the second moment",
    "maturity": "paper",
    "version": 1,
    "adapters": False,
}

DEPTH = 17 / 48
"""Where the paper's GPT-2 XL was edited."""

SHORT, LONG = 5, 10
"""Tokens of the texts in front of prompts, of half of them each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(EditParams):
    """The shared parameters of editing, and the block."""

    clamp_norm_factor: float = param(
        4.0, help="longest addition to a value, in lengths of the value", paper=4, low=0.0
    )
    contexts: int = param(
        20, help="texts of the model that each prompt is put behind as well", paper=20, low=0
    )
    layer: int | None = param(
        None,
        help="block that is edited, negative from the top; none takes the one where values are "
        "found most easily",
        paper=[17, 5],
    )


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The output matrix of the block's MLP; of every block, where it is looked for."""
    every = range(len(Slots(model)))
    return mlp_outputs_only(model, every if params.layer is None else [params.layer])


def edit(change: Finishing, params: Params) -> None:
    """One edit for each association, each on the model as the one before left it."""
    task = change.task
    contexts = contexts_of(task, [""] * params.contexts, lengths(params.contexts))
    plan = planned(
        change, params, slot="mlp", layer=params.layer, depth=DEPTH,
        build=rewriting(task, params, contexts),
    )  # fmt: skip
    one_by_one(change, params, plan)


def lengths(count: int) -> list[int]:
    """Tokens of each text in front."""
    return [SHORT] * (count // 2) + [LONG] * (count - count // 2)
