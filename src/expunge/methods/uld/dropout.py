"""Dropout that hangs on what is dropped, not on when: the same however a step is cut."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.core.rng import derive
from expunge.engine.view import View

STEP, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""The constants of splitmix64, as signed numbers."""

BITS = 24
"""Bits of a draw; float32 holds no more exactly."""


@dataclass(slots=True)
class Keys:
    """A key for every position of the pass that is running; None: nothing is dropped."""

    now: Tensor | None = None


class KeyedDropout(nn.Module):
    """Dropout whose draws are a function of position key, place and channel.

    Args:
        share: What share is dropped; the rest is scaled up, so that the mean stays.
        salt: Tells this place from the others.
        keys: Of the pass that is running.
    """

    def __init__(self, share: float, salt: int, keys: Keys) -> None:
        super().__init__()
        self._share, self._salt, self._keys = share, salt, keys

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d]."""
        keys = self._keys.now
        if keys is None:
            return x
        kept = draws(keys, self._salt, x.shape[-1]) >= self._share
        return x * kept / (1 - self._share)


def draws(keys: Tensor, salt: int, channels: int) -> Tensor:
    """[..., channels], uniform in [0, 1): the last steps of splitmix64 on key, salt and channel.

    Args:
        keys: [...] int64.
        salt: Any number of 64 bits.
        channels: How many draws for each key.
    """
    places = torch.arange(channels, device=keys.device) * STEP + salt
    mixed = _mixed(keys)[..., None] + places
    found: Tensor = _shifted(_mixed(mixed), 64 - BITS).float() / 2**BITS
    return found


def keys_of(view: View, seed: int, step: int, name: str) -> Tensor:
    """A key for every position of the rows of a view, as the model gets to see them.

    Args:
        view: The rows.
        seed: Of the run.
        step: Number of the step.
        name: Of the view.

    Returns:
        [B, T] int64; [1, L] where the rows stand end to end.
    """
    inputs = view.inputs
    rows = [derive(seed, "dropout", name, step, item) for item in view.row.tolist()]
    places = inputs.attention_mask.long().cumsum(1) * STEP
    keys = torch.tensor(rows, device=places.device)[:, None] + places
    return keys[inputs.attention_mask.bool()][None] if inputs.packing else keys


def _mixed(values: Tensor) -> Tensor:
    values = (values ^ _shifted(values, 30)) * FIRST
    values = (values ^ _shifted(values, 27)) * SECOND
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in from the left."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
