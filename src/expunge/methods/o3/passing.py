"""One forward pass with an adapter in it: the hooks, and what they tell each other."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from expunge.engine.decisions import decided
from expunge.engine.first_pass import Asked, asked_of, with_cache
from expunge.engine.recomputed import remember
from expunge.lm.low_rank import Dropout, LowRank

if TYPE_CHECKING:
    from expunge.methods.o3.board import Board

NAME = "o3"
"""The module's name in a model that is being trained; a served one has it in its hooks alone."""


@dataclass(frozen=True, slots=True)
class _Now:
    """One forward pass.

    Attributes:
        board: Whose it is.
        weights: [B, 1, 1] or [1, T, 1], how much of the adapter each row gets; None: all of it.
        is_off: Whether no row gets any.
        dropout: What the adapter does not get to see.
    """

    board: "Board"
    weights: Tensor | None = None
    is_off: bool = False
    dropout: Dropout | None = None


_NOW: ContextVar[_Now | None] = ContextVar("o3 now", default=None)
_WANTED: ContextVar[Any] = ContextVar("o3 wanted", default=None)
"""The running pass and where its logits are wanted: of this thread, whatever others do."""


class _Running:
    """The running pass of this thread, for blocks that are computed again in another."""

    @property
    def now(self) -> _Now | None:
        """The pass."""
        return _NOW.get()

    @now.setter
    def now(self, now: _Now | None) -> None:
        _NOW.set(now)


RUNNING = _Running()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Before the model runs: remember where logits are wanted."""

    board: "Board"
    model: PreTrainedModel

    def __call__(self, model: nn.Module, given: tuple[Any, ...], named: Asked) -> None:
        """A pre-hook."""
        _WANTED.set(asked_of(model, given, named).get("logits_to_keep"))


@dataclass(frozen=True, slots=True)
class Begin:
    """Before the decoder runs: decide how much each row gets."""

    board: "Board"
    model: PreTrainedModel

    def __call__(self, decoder: nn.Module, given: tuple[Any, ...], named: Asked) -> Any:
        """A pre-hook."""
        asked = with_cache(self.model, asked_of(decoder, given, named))
        wanted = _WANTED.get()
        _WANTED.set(None)
        board = self.board
        if board.learns and torch.is_grad_enabled():
            _NOW.set(_Now(board, dropout=board.dropout))
        else:
            weights = decided(self.model, NAME, asked, wanted, board.decide)
            _NOW.set(_Now(board, weights, not bool(weights.any())))
        remember(self.model, RUNNING)
        return (), asked


@dataclass(frozen=True, slots=True)
class End:
    """After the decoder ran: what follows is no part of this pass."""

    board: "Board"

    def __call__(self, *_: Any) -> None:
        """A hook."""
        _NOW.set(None)


@dataclass(frozen=True, slots=True)
class Add:
    """After a linear ran: add what stands beside it, as much as each row gets."""

    board: "Board"
    part: LowRank

    def __call__(self, _: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A hook."""
        now = _NOW.get()
        if now is None or now.board is not self.board:
            raise RuntimeError("a block of the model ran by itself: nothing was decided for it")
        if now.is_off:
            return output
        said: Tensor = self.part(given[0], now.dropout)
        if now.weights is None:
            return output + said.to(output.dtype)
        served = output + (now.weights * said).to(output.dtype)
        return torch.where(now.weights == 0, output, served)


def is_of(hook: Any, board: "Board") -> bool:
    """Whether a hook is one of a board's."""
    return isinstance(hook, Wanted | Begin | End | Add) and hook.board is board
