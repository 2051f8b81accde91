"""MEMIT: all associations at once, over several blocks, by least squares.

Objective:
    W_l <- W_l + T_l K_l^T ( lambda C_l + K_l K_l^T )^-1

    K_l [d_ff, n] are the keys of all n prompts at block l, C_l the second moment of keys over other
    text; T_l is what the values at the top block still lack, divided by the number of blocks that
    are left (see `expunge.engine.editing.spreading`). lambda weighs keys that are to stay as they
    are: C_l is a mean, so lambda = 15000 means as much as 15000 of them beside n edits.

Reference: Mass-Editing Memory in a Transformer, 2022; as unlearning in Editing as Unlearning: Are
Knowledge Editing Methods Strong Baselines for LLM Unlearning?, 2025.

Departs from the paper:
    C_l is taken over the retain rows, or over ``corpus``. ``mom2_update_weight=auto`` is 15000 from
    0.5B parameters up and half the number of edits below, where 15000 edits nothing (INFERRED). The
    blocks are the five up to the one that `rome` would look for. Families that normalise the output
    of an MLP: INFERRED. What is to be said includes the end of the turn.
"""

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedModel

from expunge.core.families import EditParams
from expunge.core.params import param
from expunge.engine.editing.editors import all_at_once
from expunge.engine.editing.spreading import over_blocks
from expunge.engine.finish import Finishing
from expunge.engine.slots.mask import Mask, mlp_outputs_only
from expunge.engine.task import Task
from expunge.lm.arch import Slots

CARD = {
    "id": "memit",
    "kind": "edit",
    "summary": "Rewrites all associations at once, spread over a few blocks.",
    "paper": "Mass-Editing Memory in a Transformer (2022)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "25 forwards and backwards over 6 prompts for each forget row; for each of 5 blocks 1 "
    "pass over the texts of the second moment and 1 over the prompts",
    "maturity": "paper",
    "version": 1,
    "adapters": False,
}

DEPTH = 8 / 32
"""Where the top one of the paper's blocks was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(EditParams):
    """The shared parameters of editing, the blocks, and how much other keys weigh."""

    mom2_update_weight: float | Literal["auto"] = param(
        "auto",
        help="weight of the second moment (lambda); auto: 15000, or half the number of edits for "
        "small models",
        paper=[15000, 20000],
        low=0.0,
    )


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The output matrices of the blocks' MLPs."""
    return mlp_outputs_only(
        model, range(len(Slots(model))) if params.layers is None else params.layers
    )


def edit(change: Finishing, params: Params) -> None:
    """One batch of all associations."""
    plan, layers = over_blocks(change, params, depth=DEPTH)
    all_at_once(change, params, plan, layers, params.mom2_update_weight)
