"""Rounding weights to few bits, as whoever deploys a model may do.

Symmetric round-to-nearest: per output channel, or per group of input channels of it, the scale is
``s = max|w| / (2^(b-1) - 1)`` and the code ``clip(round(w / s))``. The weights are put back as
``s * code``, in their own precision.

Reference: "Catastrophic Failure of LLM Unlearning via Quantization" (2024).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.lm.arch import Slots


def quantise_rtn(model: nn.Module, bits: int, group: int | None = None) -> dict[str, float]:
    """Quantise all linears of the blocks in place; embedding, head and norms stay.

    Args:
        model: A causal language model; give a copy.
        bits: Width of a code, 2 to 8.
        group: Input channels that share a scale (128 is usual for 4 bits); default: all.

    Returns:
        Name of each linear -> relative error of its weights (Frobenius norms).
    """
    errors = {}
    with torch.no_grad():
        for name, weight in matrices(model).items():
            rounded = dequantise(*quantise(weight, bits, group), weight.shape[1])
            distance = (rounded - weight).norm() / weight.norm().clamp(min=1e-30)
            errors[name] = float(distance)
            weight.copy_(rounded)
    return errors


def identity_rate(
    model_a: nn.Module, model_b: nn.Module, bits: int, group: int | None = None
) -> dict[str, float]:
    """Share of weights that two models round to the same code, by linear.

    Near 1, quantising undoes whatever made one model from the other.

    Args:
        model_a: A causal language model.
        model_b: Another one of the same shape.
        bits: Width of a code.
        group: Input channels that share a scale.

    Returns:
        Name of each linear -> share in [0, 1].
    """
    return agreement(codes_of(model_a, bits, group), codes_of(model_b, bits, group))


def codes_of(model: nn.Module, bits: int, group: int | None = None) -> dict[str, Tensor]:
    """Name of each linear of the blocks -> the codes [out, in] its weights are rounded to."""
    return {
        name: quantise(weight, bits, group)[0].flatten(1)[:, : weight.shape[1]]
        for name, weight in matrices(model).items()
    }


def agreement(codes_a: Mapping[str, Tensor], codes_b: Mapping[str, Tensor]) -> dict[str, float]:
    """Name of each linear -> share of its codes that two models have in common."""
    return {
        name: float((codes == codes_b[name]).double().mean()) for name, codes in codes_a.items()
    }


def matrices(model: nn.Module) -> dict[str, Tensor]:
    """Name of each linear of the blocks -> its weights [out, in]; writing to them changes them."""
    slots = Slots(model)
    return {name: matrix(slots.model.get_submodule(name)) for name in slots.linears()}


def matrix(layer: Any) -> Tensor:
    """The weights of a linear as [out, in], a view: GPT-2's ``Conv1D`` stores [in, out]."""
    weight: Tensor = layer.weight.data
    return weight if isinstance(layer, nn.Linear) else weight.T


def quantise(weight: Tensor, bits: int, group: int | None = None) -> tuple[Tensor, Tensor]:
    """Round a matrix.

    Args:
        weight: [out, in].
        bits: Width of a code, 2 to 8.
        group: Input channels that share a scale; default: all. A last group may be smaller.

    Returns:
        Codes int8 [out, groups, group] (the last group filled up with 0) and scales
        [out, groups, 1]; all-zero groups have scale 1.

    Raises:
        ValueError: When ``bits`` is not between 2 and 8.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"codes have 2 to 8 bits, not {bits}")
    size = group or weight.shape[1]
    precise = weight if weight.dtype == torch.float64 else weight.float()
    filled = functional.pad(precise, (0, -weight.shape[1] % size))
    grouped = filled.reshape(len(weight), -1, size)
    top = 2 ** (bits - 1) - 1
    scale = grouped.abs().amax(-1, keepdim=True) / top
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (grouped / scale).round().clamp(-top, top).to(torch.int8), scale


def dequantise(codes: Tensor, scale: Tensor, width: int) -> Tensor:
    """The matrix [out, width] that codes and scales stand for."""
    return (codes * scale).flatten(1)[:, :width]
