"""Guards inside a model: where a forward pass begins, what each of its rows is told.

A guard that works on embeddings or on the residual stream decides once for every row, from its
prompt; `Begin` is the hook that does it, `expunge.engine.decisions` where the decision lies. What a
hook holds of the guard is its `Board`, which is never copied: a copy of a guarded model is guarded
by the same guard, targets that come and go later included.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from expunge.engine.decisions import Held, held
from expunge.engine.first_pass import Asked, asked_of, with_cache

_WANTED: ContextVar[Mapping[int, Any]] = ContextVar("where guards' logits are wanted")
"""Board -> the ``logits_to_keep`` of the running pass of this thread."""


class Board(ABC):
    """A guard at work in a model.

    Attributes:
        name: Of the guard; stands in the caches.
    """

    name = ""

    def __deepcopy__(self, _: dict[int, Any]) -> "Board":
        return self

    @abstractmethod
    def decide(self, prompts: Sequence[list[int]]) -> Tensor:
        """[n, k], what is decided for rows with these prompts."""

    def begin(self, model: PreTrainedModel, asked: dict[str, Any], now: Held) -> dict[str, Any]:
        """What to ask the decoder in the place of ``asked``, given what holds for its rows."""
        return asked

    def put_in(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Hook the guard into a model."""
        decoder: nn.Module = cast(Any, model).get_decoder()
        return [
            model.register_forward_pre_hook(Wanted(self), with_kwargs=True),
            decoder.register_forward_pre_hook(Begin(self, model), with_kwargs=True),
        ]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Before the model runs: remember where logits are wanted."""

    board: Board

    def __call__(self, model: nn.Module, given: tuple[Any, ...], named: Asked) -> None:
        """A pre-hook."""
        keep = asked_of(model, given, named).get("logits_to_keep")
        _WANTED.set({**_WANTED.get({}), id(self.board): keep})


@dataclass(frozen=True, slots=True)
class Begin:
    """Before the decoder runs: decide for its rows."""

    board: Board
    model: PreTrainedModel

    def __call__(self, decoder: nn.Module, given: tuple[Any, ...], named: Asked) -> Any:
        """A pre-hook."""
        asked = with_cache(self.model, asked_of(decoder, given, named))
        wanted = dict(_WANTED.get({}))
        keep = wanted.pop(id(self.board), None)
        _WANTED.set(wanted)
        with torch.no_grad():
            now = held(self.model, self.board.name, asked, keep, self.board.decide)
        return (), self.board.begin(self.model, asked, now)
