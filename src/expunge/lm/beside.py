"""A second model that reads along while the first one writes, so that states of both can be mixed.

The second model keeps keys and values of its own, in step with those of the first: it reads every
token once, and rows that leave the batch leave it for both.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.lm.arch import base_of
from expunge.lm.hooks import evaluating, forward_to, intervene
from expunge.lm.prefixes import new_cache

Mixing = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The block's output [B, T, d], the second model's at the same tokens [B, T, d], and which of them
open a row [B, T] -> the output to go on with."""


@contextmanager
def mixed(model: nn.Module, other: nn.Module, layer: int, fn: Mixing) -> Iterator[None]:
    """Replace the output of a block by a function of it and of another model's, in the context.

    Args:
        model: The model that writes.
        other: One that takes the same tokens; it may be the same model, which then reads once.
        layer: Block number, negative from the top.
        fn: See `Mixing`.
    """
    along = _Along(None if base_of(model) is base_of(other) else other, layer)

    def replace(own: Tensor) -> Tensor:
        states = own if along.states is None else along.states.to(own)
        return fn(own, states, along.first.to(own.device))

    # The decoder, since an adapter's wrapper calls the base model's forward past its hooks.
    decoder: nn.Module = base_of(model).get_decoder()  # type: ignore[operator]
    handle = decoder.register_forward_pre_hook(along.read, with_kwargs=True)
    try:
        with evaluating(other), intervene(model, layer, replace):
            yield
    finally:
        handle.remove()
        along.part()


class _Along:
    """What the other model makes of what the model is just given to read."""

    def __init__(self, other: nn.Module | None, layer: int) -> None:
        self.states: Tensor | None = None
        self.first = torch.zeros(0)
        self._other, self._layer = other, layer
        self._leader: Any = None
        self._own: Any = None

    def read(self, _: nn.Module, positional: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Run the other model on the same tokens, up to the layer."""
        ids = positional[0] if positional else named["input_ids"]
        mask, leader = named.get("attention_mask"), named.get("past_key_values")
        if mask is None:  # nothing is padded, in this call or in those before
            past = 0 if leader is None else leader.get_seq_length()
            mask = ids.new_ones(len(ids), past + ids.shape[1])
        self.first = ((mask.cumsum(1) == 1) & mask.bool())[:, -ids.shape[1] :]
        if self._other is None:
            return
        device = next(self._other.parameters()).device
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        if named.get("position_ids") is not None:
            inputs["position_ids"] = named["position_ids"].to(device)
        cache = self._in_step(leader, device)
        self.states = forward_to(
            self._other,
            self._layer,
            **inputs,
            past_key_values=cache,
            use_cache=cache is not None,
        )

    def part(self) -> None:
        """Leave the model's keys and values as they were found."""
        if self._leader is not None:
            del self._leader.batch_select_indices
        self._leader = self._own = None

    def _in_step(self, leader: Any, device: torch.device) -> Any:
        """Keys and values of the other model, from which rows leave as they leave the leader."""
        if leader is None or self._other is None:
            return None
        if leader is not self._leader:
            self.part()
            own, select = new_cache(self._other), leader.batch_select_indices

            def both(rows: Tensor) -> None:
                select(rows)
                own.batch_select_indices(rows.to(device))

            leader.batch_select_indices = both
            self._leader, self._own = leader, own
        return self._own
