"""Rounding weights to 4 bits with a code of floating-point values, as a common loader does.

The weights of a matrix [out, in], row after row, are cut into blocks of 64. A block is divided by
its largest absolute value and each weight takes the nearest value of the code: 16 quantiles of the
normal distribution (``nf4``), or the 4-bit floats (``fp4``).

Reference: QLoRA: Efficient Finetuning of Quantized LLMs (2023).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.lm.quantise import matrices

Code = Literal["nf4", "fp4"]

BLOCK = 64
"""Weights that share a scale."""

_FLOATS = (0.0625 / 12, 2 / 12, 3 / 12, 4 / 12, 6 / 12, 8 / 12, 1.0)
CODES: dict[str, tuple[float, ...]] = {
    "nf4": (
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ),
    "fp4": (*(-x for x in reversed(_FLOATS)), 0.0, *_FLOATS),
}  # fmt: skip
"""Name of a code -> its values in ascending order, as published."""


def encode(weight: Tensor, code: Code, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Round a matrix to the nearest values of a code.

    Args:
        weight: [out, in].
        code: Name of the code.
        block: Weights, row after row, that share a scale; the last block may be smaller.

    Returns:
        Places in the code, int8 [out, in], and the scale of each weight [out, in]; the scale of a
        block of zeros is 1.
    """
    precise = weight if weight.dtype == torch.float64 else weight.float()
    flat = precise.flatten()
    blocks = functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    scale = blocks.abs().amax(1, keepdim=True)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    edges = boundaries(code).to(blocks)
    places = torch.bucketize(blocks / scale, edges).to(torch.int8)
    of_each = scale.expand_as(blocks)
    return tuple(x.flatten()[: len(flat)].view_as(weight) for x in (places, of_each))  # type: ignore[return-value]


def decode(places: Tensor, scale: Tensor, code: Code) -> Tensor:
    """The matrix that places in a code and scales stand for."""
    return torch.tensor(CODES[code]).to(scale)[places.long()] * scale


def boundaries(code: Code) -> Tensor:
    """Where one value of a code ends and the next begins: half-way between them."""
    values = torch.tensor(CODES[code], dtype=torch.float64)
    return (values[:-1] + values[1:]) / 2


@torch.no_grad()
def round_to_code(model: nn.Module, code: Code, block: int = BLOCK) -> dict[str, Tensor]:
    """Round all linears of the blocks in place; embedding, head and norms stay.

    Returns:
        Name of each linear -> places in the code [out, in].
    """
    found = {}
    for name, weight in matrices(model).items():
        found[name], scale = encode(weight, code, block)
        weight.copy_(decode(found[name], scale, code))
    return found
