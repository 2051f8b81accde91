"""What a part of a model must know of the forward pass it runs in: which tokens, after which."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from expunge.engine.first_pass import Asked, asked_of, known_before, starts, with_cache
from expunge.engine.recomputed import remember
from expunge.lm.prefixes import new_cache


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass.

    Attributes:
        asked: Its arguments by name.
        past: Positions that earlier calls have read.
        notes: Where notes on these rows are kept, in the caller's cache; None without a cache.
    """

    asked: Asked
    past: int
    notes: Any

    def begins(self, like: Tensor) -> Tensor:
        """[B, T] bool: where a row begins; padding may be true."""
        found = starts(self.asked, like.shape[1], self.past)
        return found.to(like.device).expand(like.shape[:2])

    def real(self, like: Tensor) -> Tensor:
        """[B, T] bool: positions that are no padding, as far as that was said."""
        mask = self.asked.get("attention_mask")
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            return torch.ones(like.shape[:2], dtype=torch.bool, device=like.device)
        return mask[:, -like.shape[1] :].to(like.device).bool()

    def noted(self, notes: Tensor) -> Tensor:
        """Keep notes [B, T, k] on these positions.

        Returns:
            All that was kept of these rows so far, [B, past + T, k].
        """
        if self.notes is None:
            return notes
        history: Tensor = self.notes.update(notes[:, None], notes[:, None])[0]
        return history[:, 0]


class Passes:
    """Knows the pass that is running.

    What is noted lies in the caller's own cache, behind the layers of the model: whatever repeats,
    picks or drops rows of that cache does the same to it.

    Args:
        model: The model.
        name: Tells these notes from those of others in the same cache.

    Attributes:
        now: The pass that is running, or None.
    """

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        self.model, self.name = model, name
        self.now: Pass | None = None

    def watch(self) -> list[RemovableHandle]:
        """Hook into the model."""
        decoder: nn.Module = cast(Any, self.model).get_decoder()
        return [
            decoder.register_forward_pre_hook(self._begin, with_kwargs=True),
            decoder.register_forward_hook(self._end, always_call=True),
        ]

    def _begin(self, decoder: nn.Module, given: tuple[Any, ...], named: Asked) -> Any:
        asked = with_cache(self.model, asked_of(decoder, given, named))
        past = known_before(asked)
        self.now = Pass(asked, past, self._notes_in(asked.get("past_key_values")))
        remember(self.model, self)
        return (), asked

    def _end(self, *_: Any) -> None:
        self.now = None

    def _notes_in(self, cache: Any) -> Any:
        if cache is None:
            return None
        main = len(new_cache(self.model).layers)
        while len(cache.layers) < main:
            cache.layers.append(cache.layer_class_to_replicate())
        for layer in cache.layers[main:]:
            if getattr(layer, "noted_by", None) == self.name:
                return layer
        made: Any = cast(Any, DynamicLayer)()
        made.noted_by = self.name
        cache.layers.append(made)
        return made
