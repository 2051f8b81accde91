"""Masks: which weights may move."""

from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.params import GradientParams
from expunge.engine.task import Task
from expunge.lm.arch import Slots

Mask = Mapping[str, Tensor | bool]
"""Parameter name -> True (moves), False (frozen) or a bool tensor of its shape. Absent: moves."""


def all_trainable(model: PreTrainedModel, task: Task, params: GradientParams) -> Mask:
    """The default: everything that asks for a gradient moves, or only the blocks of ``layers``."""
    if params.layers is None:
        return {}
    blocks = Slots(model).blocks
    chosen = {id(p) for layer in params.layers for p in blocks[layer].parameters()}
    return {name: id(p) in chosen for name, p in model.named_parameters() if p.requires_grad}


SHARED = {"all": all_trainable}
