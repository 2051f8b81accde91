"""What a mask of a weight means for the low-rank adapter that stands in for it.

An adapter adds ``B A`` to a weight. Where only some outputs may change, the other rows of B stay at
the zero they start from; where only some inputs may, the other columns of A are made zero and stay
so. Any other set of single weights cannot be kept from moving by a product of two matrices.
"""

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from expunge.core.errors import ExpungeError
from expunge.engine.slots.mask import Mask
from expunge.lm.arch import base_of


def of_adapters(model: nn.Module, allowed: Mask) -> Mask:
    """The mask of the adapters' own parameters, so that only ``allowed`` weights change.

    Columns of A that may not move are put to zero.

    Args:
        model: With adapters that were just made.
        allowed: Mask of the weights without adapters.

    Returns:
        Names of adapter parameters, as ``model.named_parameters`` has them -> what of them moves.

    Raises:
        ExpungeError: ``E-USE-006`` for a mask that is no product of outputs and inputs.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, Tensor | bool] = {}
    for name, layer in base_of(model).named_modules():
        entry = allowed.get(f"{name}.weight", True)
        if isinstance(entry, Tensor) and hasattr(layer, "lora_A"):
            below = layer.base_layer
            is_transposed = isinstance(below, Conv1D) or getattr(below, "is_turned", False)
            outputs, inputs = _sides(entry.T if is_transposed else entry, name)
            for first, second in zip(*_factors(layer), strict=True):
                with torch.no_grad():
                    first.mul_(inputs)
                found[names[id(first)]] = inputs[None].expand(first.shape)
                found[names[id(second)]] = outputs[:, None].expand(second.shape)
    return found


def _factors(layer: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """A [r, in] and B [out, r] of each adapter of a layer."""
    return (
        [module.weight for module in layer.lora_A.values()],  # type: ignore[operator]
        [module.weight for module in layer.lora_B.values()],  # type: ignore[operator]
    )


def _sides(mask: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Outputs and inputs [out], [in] whose product a mask [out, in] is."""
    outputs, inputs = mask.any(1), mask.any(0)
    if not torch.equal(mask, outputs[:, None] & inputs):
        raise ExpungeError(
            "E-USE-006",
            f"Single weights of {name} may move, and an adapter's product reaches all of them.",
            "a method that moves whole outputs or inputs, or no adapter.",
            "Leave --adapter out.",
        )
    return outputs, inputs
