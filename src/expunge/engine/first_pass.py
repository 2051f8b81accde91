"""Another model over the same tokens, before the model itself reads them.

What decides token by token what a run-time part adds (a router, a detector, an assistant) must know
of each token first. The pass runs in modules of its own (`expunge.engine.runtime.twin`, or another
model), so no hook that somebody put into the model sees it. Its keys and values, and what it noted
of every token, lie in the caller's own cache, behind the layers of the model: whatever repeats,
picks or drops rows of that cache does the same to them.
"""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from expunge.lm.prefixes import new_cache
from expunge.lm.scoring import takes

TOKENS = ("input_ids", "inputs_embeds", "attention_mask", "position_ids")
"""What says which tokens a forward pass is about."""

Asked = Mapping[str, Any]
"""Arguments of a forward pass by name."""


def asked_of(module: nn.Module, given: tuple[Any, ...], named: Asked) -> dict[str, Any]:
    """The arguments of a call of ``module`` by name, as far as they were given."""
    _, *names = inspect.signature(type(module).forward).parameters
    return dict(zip(names, given, strict=False)) | dict(named)


def tokens_of(asked: Asked) -> dict[str, Any]:
    """What of the arguments of a call says which tokens it is about."""
    return {name: asked[name] for name in TOKENS if asked.get(name) is not None}


def with_cache(model: PreTrainedModel, asked: Asked) -> dict[str, Any]:
    """The arguments with the cache in them that the model would otherwise make by itself."""
    uses: bool | None = asked.get("use_cache")
    if uses is None:
        uses = bool(getattr(model.config.get_text_config(), "use_cache", False))
    is_made = uses and not model.training and takes(model, "past_key_values")
    if not is_made or asked.get("past_key_values") is not None:
        return dict(asked)
    return {**asked, "past_key_values": new_cache(model)}


def known_before(asked: Asked) -> int:
    """How many positions of these rows earlier calls have read."""
    cache = asked.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())


def starts(asked: Asked, length: int, past: int) -> Tensor:
    """[B or 1, T] bool: where a row begins, so that nothing stands before; padding may be true.

    Args:
        asked: The arguments.
        length: Positions of this call.
        past: Positions that earlier calls have read.
    """
    positions, mask = asked.get("position_ids"), asked.get("attention_mask")
    if positions is not None:
        found: Tensor = positions == 0
        return found
    if isinstance(mask, Tensor) and mask.dim() == 2:
        return (mask.long().cumsum(1) <= 1)[:, -length:]
    given = asked.get("input_ids")
    given = asked["inputs_embeds"] if given is None else given
    return (torch.arange(past, past + length, device=given.device) == 0)[None]


class FirstPass:
    """Runs another model first, and keeps what it noted.

    Args:
        model: The model that is to read the tokens then.
        other: The one that reads them first.
        noted: Its outputs -> [B, T, k], what to note of each position; None notes a zero.
        options: Further arguments of its forward.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        other: PreTrainedModel,
        noted: Callable[[Any], Tensor] | None = None,
        **options: Any,
    ) -> None:
        self._main = len(new_cache(model).layers)
        self._other, self._what, self._options = other, noted, options
        self._start: int | None = None
        self._size = 0

    @torch.no_grad()
    def __call__(self, asked: Asked, **options: Any) -> tuple[Any, Tensor]:
        """Read the tokens of one call.

        Args:
            asked: Its arguments, with the cache that the model is going to use.
            options: Further arguments of the other's forward, for this call.

        Returns:
            What the other model said, and all that was noted of these rows so far, this call's
            positions last: [B, past + T, k].
        """
        inputs = tokens_of(asked)
        options = {**self._options, **options}
        cache = asked.get("past_key_values")
        if cache is None:
            outputs = self._other(**inputs, **options, use_cache=False)
            return outputs, self._noted(outputs, inputs)
        layers = self._layers_in(cache)
        own = copy.copy(cache)
        own.layers = layers[:-1]
        outputs = self._other(**inputs, **options, past_key_values=own, use_cache=True)
        noted = self._noted(outputs, inputs)[:, None]
        history, _ = layers[-1].update(noted, noted)
        if self._size == 0:
            self._size = len(own.layers) + 1
        start = self._start or 0
        cache.layers[start : start + self._size] = [*own.layers, layers[-1]]
        return outputs, history[:, 0]

    def _noted(self, outputs: Any, inputs: Asked) -> Tensor:
        if self._what is not None:
            return self._what(outputs)
        given = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
        return torch.zeros(*given.shape[:2], 1, device=given.device)

    def _layers_in(self, cache: Any) -> list[Any]:
        """What lies in the cache for this pass; new layers where nothing does yet."""
        while len(cache.layers) < self._main:
            cache.layers.append(cache.layer_class_to_replicate())
        if self._start is None:
            self._start = len(cache.layers)
        if len(cache.layers) > self._start:
            return list(cache.layers[self._start : self._start + self._size])
        notes: Any = DynamicLayer
        return [*new_cache(self._other).layers, notes()]
