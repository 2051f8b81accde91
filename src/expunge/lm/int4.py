"""Linear layers held in four bits: what lies frozen under an adapter.

Every linear of the blocks keeps a code of four bits for each weight, two in a byte, and a scale
for each group of 64 input channels of an output; the weight is made from them whenever the layer
runs, forward and backward, and dropped again. Rounding is that of `expunge.lm.quantise`.

On an accelerator with bitsandbytes installed its layers are used instead (NormalFloat codes, fused
products). That path is INFERRED: it has not been run here.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from expunge.lm.arch import Slots
from expunge.lm.quantise import dequantise, quantise

GROUP = 64
"""Input channels that share a scale."""

ZERO = 8
"""Code -7 to 7 is kept as 1 to 15."""


class Int4Linear(nn.Linear):
    """A frozen linear layer [out, in] in four bits; also stands for GPT-2's ``Conv1D``.

    Attributes:
        codes: uint8 [out, groups * 32], two codes in a byte.
        scales: [out, groups, 1], float32 (float64 for float64 weights).
        is_turned: Whether the weight it stands for was held [in, out].
    """

    is_turned = False

    codes: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        nn.Module.__init__(self)  # a linear's own would make a weight of full size
        self.out_features, self.in_features = weight.shape
        codes, scales = quantise(weight, 4, min(GROUP, self.in_features + self.in_features % 2))
        self.register_buffer("codes", packed(codes.flatten(1)))
        self.register_buffer("scales", scales)
        kept = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_parameter("bias", kept)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """[out, in], made anew at each look; writing to it changes nothing."""
        codes = unpacked(self.codes).view(*self.scales.shape[:2], -1)
        return dequantise(codes, self.scales, self.in_features)

    def forward(self, input: Tensor) -> Tensor:
        """As a linear layer with the rounded weight."""
        product: Tensor = _Product.apply(input, self)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias.to(product.dtype)


class _Product(torch.autograd.Function):
    """``x W^T`` that remembers the codes for the backward pass, not the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Int4Linear) -> Tensor:
        ctx.layer, ctx.dtype = layer, x.dtype
        return functional.linear(x, layer.weight.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return (gradient @ ctx.layer.weight.to(gradient.dtype)).to(ctx.dtype), None


def packed(codes: Tensor) -> Tensor:
    """Codes int8 [out, n] (n even) -> uint8 [out, n / 2], the even ones in the low half."""
    shifted = (codes + ZERO).to(torch.uint8)
    return shifted[:, ::2] | shifted[:, 1::2] << 4


def unpacked(held: Tensor) -> Tensor:
    """The inverse of `packed`."""
    return torch.stack([held & 15, held >> 4], -1).flatten(1).to(torch.int8) - ZERO


@torch.no_grad()
def hold_in_int4(model: nn.Module) -> None:
    """Put every linear of the blocks into four bits, in place; nothing in the model moves then.

    Embedding, head and norms keep their precision.
    """
    model.requires_grad_(False)
    slots = Slots(model)
    make = _bitsandbytes if _has_bitsandbytes(model) else _rounded
    for name in slots.linears():
        parent, _, leaf = name.rpartition(".")
        setattr(slots.model.get_submodule(parent), leaf, make(slots.model.get_submodule(name)))


def _rounded(layer: nn.Module) -> nn.Module:
    made = Int4Linear(*_matrix(layer))
    made.is_turned = isinstance(layer, Conv1D)
    return made


def _matrix(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Weight [out, in] and bias, of a linear or a ``Conv1D``."""
    weight = layer.weight.data.T if isinstance(layer, Conv1D) else layer.weight.data
    return weight, None if layer.bias is None else layer.bias.data


def _has_bitsandbytes(model: nn.Module) -> bool:
    on_accelerator = next(model.parameters()).device.type == "cuda"
    return on_accelerator and find_spec("bitsandbytes") is not None


def _bitsandbytes(layer: nn.Module) -> nn.Module:
    """INFERRED: moving the layer to its device is what rounds it."""
    bitsandbytes = import_module("bitsandbytes")
    weight, bias = _matrix(layer)
    outputs, inputs = weight.shape
    made: Any = bitsandbytes.nn.Linear4bit(
        inputs, outputs, bias=bias is not None, compute_dtype=torch.bfloat16, quant_type="nf4"
    )
    made.weight = bitsandbytes.nn.Params4bit(
        weight.contiguous().cpu(), requires_grad=False, quant_type="nf4"
    )
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    moved: nn.Module = made.to(weight.device)
    return moved
