"""What the methods of representation misdirection have in common: one block, steered from below.

A method that steers another length or direction takes `mask` and `retain` from here as its slots,
and asks `steered` and `lengths` what it pushes and how long that is now. Its parameters have
``layer``, ``positions`` and ``include_bos`` beside those of every gradient method.

Reference: The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning, 2024.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from expunge.engine.mean import Mean
from expunge.engine.slots import retain as shared
from expunge.engine.slots.mask import Mask, mlp_outputs_only
from expunge.engine.steering import at_depth, natural_norms, positions_of
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.arch import Slots

DEPTH = 7 / 32
"""The paper steers block 7 of 32."""

MOVED = 3
"""Blocks whose MLP output moves: the steered one and those right below it."""


def layer_of(params: Any, blocks: int) -> int:
    """The steered block of a model with so many."""
    return at_depth(DEPTH, blocks) if params.layer is None else int(params.layer)


def steered(view: View, params: Any) -> tuple[Tensor, Tensor]:
    """What is pushed.

    Returns:
        [B, T, d], the outputs of the steered block, and [B, T] bool, which positions are pushed.
    """
    hidden = view.hidden(layer_of(params, view.blocks))
    return hidden, positions_of(view, params.positions, include_first=params.include_bos)


def lengths(task: Task, params: Any) -> dict[str, float]:
    """Topic -> mean length of what is pushed, on the first forget batch of the original model.

    Args:
        task: After `expunge.engine.steering.remember_topics`.
        params: Of the method.
    """
    layer = layer_of(params, len(Slots(task.model)))
    return natural_norms(task, params, layer, params.positions, include_first=params.include_bos)


def mask(model: PreTrainedModel, task: Task, params: Any) -> Mask:
    """The MLP output matrices of the steered block and the two below it (or of ``layers``)."""
    slots = Slots(model)
    top = slots.index(layer_of(params, len(slots)))
    return mlp_outputs_only(model, params.layers or range(max(0, top - MOVED + 1), top + 1))


def retain(step: Step, params: Any) -> Mean | None:
    """The shared retain term; ``mse`` compares the steered block."""
    layer = layer_of(params, step.retain.blocks) if params.mse_layer is None else params.mse_layer
    return shared.by_term(step, replace(params, mse_layer=layer))
