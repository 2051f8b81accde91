"""What an autoencoder makes of a block's output, in the place of that output."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.lm.arch import base_of
from expunge.lm.hooks import intervene
from expunge.lm.sae.coder import Autoencoder


@contextmanager
def spliced(model: nn.Module, layer: int, coder: Autoencoder) -> Iterator[None]:
    """Put reconstructions in the place of a block's output, during the context.

    The first token of a row is left alone: its state is unlike all others in most models.

    Args:
        model: A causal language model.
        layer: Block, negative from the top.
        coder: Of the output of that block.
    """
    opening = _Opening()

    def restored(own: Tensor) -> Tensor:
        made = coder.decode(coder.encode(own)).to(own)
        return torch.where(opening.first.to(own.device)[..., None], own, made)

    # The decoder, since an adapter's wrapper calls the base model's forward past its hooks.
    decoder: nn.Module = base_of(model).get_decoder()  # type: ignore[operator]
    handle = decoder.register_forward_pre_hook(opening.read, with_kwargs=True)
    try:
        with intervene(model, layer, restored):
            yield
    finally:
        handle.remove()


class _Opening:
    """Which tokens of a forward pass open a row.

    Attributes:
        first: [B or 1, T] bool.
    """

    def __init__(self) -> None:
        self.first = torch.zeros(1, 1, dtype=torch.bool)

    def read(self, _: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Tell them from mask, positions or what was read before."""
        ids = named["input_ids"] if named.get("input_ids") is not None else given[0]
        length, mask, places = ids.shape[1], *map(named.get, ("attention_mask", "position_ids"))
        if mask is not None:
            self.first = ((mask.cumsum(1) == 1) & mask.bool())[:, -length:]
        elif places is not None:
            self.first = places == 0
        else:
            cache = named.get("past_key_values")
            before = 0 if cache is None else cache.get_seq_length()
            self.first = (torch.arange(length, device=ids.device) + before == 0)[None]
