"""What stands beside a linear layer: a low-rank matrix, with dropout that is a function of names.

Dropout as libraries have it depends on how a batch is cut and on what was drawn before. Here a
channel is dropped, or not, by a hash of the position it stands at: the same in every cut of a
batch, in every process, after a restart, and where a block is computed again.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from expunge.core.rng import generator
from expunge.lm.scoring import at_least_float32

FRACTION = 24
"""Bits of a drawn number."""


def hashed(values: Tensor) -> Tensor:
    """A number of 64 bits for each number, as the finaliser of SplitMix64 mixes it."""
    x = values + -7046029254386353131
    x = (x ^ _shifted(x, 30)) * -4658895280553007687
    x = (x ^ _shifted(x, 27)) * -7723592293110705685
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Dropout:
    """Which channels are left out where.

    Attributes:
        keys: [B, T], a name for every position.
        share: How many are left out.
    """

    keys: Tensor
    share: float

    def __call__(self, x: Tensor, layer: int) -> Tensor:
        """``x`` [B, T, d] without the channels that are dropped, the others larger by as much.

        Args:
            x: What goes into the low-rank matrix.
            layer: Number of the linear it stands beside; each drops others.
        """
        channels = torch.arange(x.shape[-1], device=x.device)
        drawn = hashed(hashed(self.keys + layer)[..., None] + channels)
        kept = _shifted(drawn, 64 - FRACTION) >= self.share * (1 << FRACTION)
        return x * kept / (1 - self.share)


class LowRank(nn.Module):
    """``scale B A x`` beside a linear.

    Args:
        a: [r, inputs].
        b: [outputs, r].
        scale: Factor: alpha / r.
        layer: Number of the linear, for dropout.
    """

    def __init__(self, a: Tensor, b: Tensor, scale: float, layer: int = 0) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)
        self.scale, self.layer = scale, layer

    @classmethod
    def new(
        cls, module: nn.Module, rank: int, alpha: float, layer: int, seed: int, *names: str
    ) -> "LowRank":
        """One that does nothing yet: A as a linear begins, B zero.

        Args:
            module: The linear.
            rank: r.
            alpha: The scale is alpha / r.
            layer: Number of the linear.
            seed: Of the run.
            names: For what A is drawn.
        """
        inputs, outputs = sizes_of(module)
        weight: Tensor = module.weight  # type: ignore[assignment]
        like = {
            "device": weight.device,
            "dtype": torch.promote_types(_float(weight), torch.float32),
        }
        most = inputs**-0.5
        drawn = generator(seed, *names).uniform(-most, most, (rank, inputs))
        a, b = torch.from_numpy(drawn).to(**like), torch.zeros(outputs, rank, **like)  # type: ignore[call-overload]
        return cls(a, b, alpha / rank, layer)

    def check_fits(self, module: nn.Module) -> None:
        """Whether it is made for a linear.

        Raises:
            ValueError: When it is not.
        """
        inputs, outputs = sizes_of(module)
        if self.a.shape != (len(self.a), inputs) or self.b.shape != (outputs, len(self.a)):
            raise ValueError(f"a low-rank matrix {tuple(self.b.shape)} x {tuple(self.a.shape)}")

    def forward(self, x: Tensor, dropout: Dropout | None = None) -> Tensor:
        """What is added to the linear's output [..., outputs], in at least float32."""
        with torch.autocast(x.device.type, enabled=False):
            a, b = at_least_float32(self.a), at_least_float32(self.b)
            given = x.to(a.dtype)
            given = given if dropout is None else dropout(given, self.layer)
            return self.scale * linear(linear(given, a), b)


def overlap(a: Tensor, earlier: Tensor) -> Tensor:
    """``|| A_s A^T ||_F^2``: how much two matrices [r, d] read of the same directions."""
    return (earlier.to(a) @ a.T).square().sum()


def sizes_of(module: nn.Module) -> tuple[int, int]:
    """How many numbers a linear takes and gives.

    Raises:
        TypeError: When it is none.
    """
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    raise TypeError(f"low-rank factors beside a {type(module).__name__}")


def position_keys(rows: Tensor, length: int, *names: int) -> Tensor:
    """[B, T], a name for every position of some rows.

    Args:
        rows: [B], a number for each row.
        length: T.
        names: What else the draw hangs on: seed and step, each below 2**63.
    """
    keys = torch.zeros_like(rows)
    for name in names:
        keys = hashed(keys + name)
    return hashed(hashed(keys + rows)[:, None] + torch.arange(length, device=rows.device))


def _float(weight: Tensor) -> torch.dtype:
    return weight.dtype if weight.is_floating_point() else torch.float32
