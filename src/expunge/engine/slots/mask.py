"""Masks: which weights may move."""

from collections.abc import Collection, Iterable, Mapping

from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.families import GradientParams
from expunge.engine.task import Task
from expunge.lm.arch import Slots

Mask = Mapping[str, Tensor | bool]
"""Parameter name -> True (moves), False (frozen) or a bool tensor of its shape. Absent: moves."""


def all_trainable(model: PreTrainedModel, task: Task, params: GradientParams) -> Mask:
    """The default: everything that asks for a gradient moves, or only the blocks of ``layers``."""
    return {} if params.layers is None else blocks_only(model, params.layers)


def blocks_only(model: PreTrainedModel, layers: Iterable[int]) -> Mask:
    """Everything inside some blocks moves, nothing else.

    Args:
        model: A causal language model.
        layers: Blocks, negative from the top.
    """
    slots = Slots(model)
    inside = {id(p) for layer in layers for p in slots.blocks[slots.index(layer)].parameters()}
    return _only(model, {name for name, p in model.named_parameters() if id(p) in inside})


def mlp_outputs_only(model: PreTrainedModel, layers: Iterable[int]) -> Mask:
    """The output matrices of some blocks' MLPs move, nothing else; no bias does.

    They are found by name: by position inside a block, the same index is another matrix in every
    family.

    Args:
        model: A causal language model.
        layers: Blocks, negative from the top.
    """
    slots = Slots(model)
    matrices = {f"{name}.weight" for layer in layers for name in slots.names(layer, "mlp_out")}
    return _only(model, matrices)


def _only(model: PreTrainedModel, names: Collection[str]) -> Mask:
    return {name: name in names for name, p in model.named_parameters() if p.requires_grad}


def nothing(model: PreTrainedModel, task: Task, params: GradientParams) -> Mask:
    """Nothing of the model itself moves: what is trained stands beside it."""
    return {name: False for name, _ in model.named_parameters()}


SHARED = {"all": all_trainable, "nothing": nothing}
