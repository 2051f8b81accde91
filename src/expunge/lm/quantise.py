"""Rounding weights to few bits, as whoever deploys a model may do.

Symmetric round-to-nearest: per output channel, or per group of input channels of it, the scale is
``s = max|w| / (2^(b-1) - 1)`` and the code ``clip(round(w / s))``. The weights are put back as
``s * code``, in their own precision.

Reference: "Catastrophic Failure of LLM Unlearning via Quantization" (2024).
"""

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
    slots, errors = Slots(model), {}
    with torch.no_grad():
        for name in slots.linears():
            weight = _weight(slots, name)
            codes, scale = quantise(_by_output(slots, name, weight), bits, group)
            rounded = _by_output(slots, name, dequantise(codes, scale, _width(slots, name)))
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
    slots_a, slots_b, rates = Slots(model_a), Slots(model_b), {}
    with torch.no_grad():
        for name in slots_a.linears():
            weights = [_by_output(s, name, _weight(s, name)) for s in (slots_a, slots_b)]
            a, b = (quantise(weight, bits, group)[0] for weight in weights)
            width = _width(slots_a, name)
            same = (a == b).flatten(1)[:, :width]
            rates[name] = float(same.double().mean())
    return rates


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


def _weight(slots: Slots, name: str) -> Tensor:
    weight: Any = slots.model.get_submodule(name).weight
    kept: Tensor = weight.data
    return kept


def _by_output(slots: Slots, name: str, weight: Tensor) -> Tensor:
    """[out, in] from a layer's own order and back: GPT-2's ``Conv1D`` stores [in, out]."""
    is_linear = isinstance(slots.model.get_submodule(name), nn.Linear)
    return weight if is_linear else weight.T


def _width(slots: Slots, name: str) -> int:
    return _by_output(slots, name, _weight(slots, name)).shape[1]
