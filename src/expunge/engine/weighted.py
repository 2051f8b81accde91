"""An adapter of which every row gets a share of its own: in the forward pass, and out of it again.

    y = W x + w(row) * s B A x        for every linear W that the adapter stands beside

The share w is settled once a row, on its prompt, before the first block reads it, and kept with the
cache while the answer is written (`expunge.engine.decisions`). A row whose share is 0 is answered
by W alone, bit for bit. Several such adapters may stand in one model: each decides for itself.
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

from expunge.engine.decisions import decided
from expunge.engine.first_pass import Asked, asked_of, with_cache
from expunge.engine.recomputed import remember
from expunge.lm.low_rank import Dropout, LowRank


class Weighted(nn.Module, ABC):
    """An adapter beside the linears of a model.

    Args:
        linears: Name of a linear of the model -> what stands beside it.
        owner: Whose decisions these are; stands in the cache, and no two of a model share one.
        learns: Whether it is being trained: while gradients are taken every row gets all of it.

    Attributes:
        dropout: For the next passes that take gradients.
    """

    def __init__(self, linears: Mapping[str, LowRank], *, owner: str, learns: bool = False) -> None:
        super().__init__()
        self.names = tuple(linears)
        self.parts = nn.ModuleList(linears.values())
        self.owner, self.learns = owner, learns
        self.dropout: Dropout | None = None

    @property
    def all(self) -> Sequence[LowRank]:
        """What stands beside the linears, in the order of ``names``."""
        return cast(Sequence[LowRank], self.parts)

    def begin(self, asked: Asked) -> None:
        """Called before every pass with its arguments; changes from outside are looked up here."""

    @abstractmethod
    def decide(self, prompts: Sequence[list[int]]) -> Tensor:
        """[n], the share of each prompt."""

    def put_in(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Hook the adapter into the model it was made for."""
        decoder: nn.Module = cast(Any, model).get_decoder()
        handles = [
            model.register_forward_pre_hook(Wanted(self, model), with_kwargs=True),
            decoder.register_forward_pre_hook(Begin(self, model), with_kwargs=True),
            decoder.register_forward_hook(End(self)),
        ]
        for name, part in zip(self.names, self.all, strict=True):
            hook = Add(self, part)
            handles.append(model.get_submodule(name).register_forward_hook(hook))
        return handles

    def take_out(self, model: nn.Module) -> None:
        """Leave the model as it was before."""
        for module in model.modules():
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key in [key for key, hook in hooks.items() if is_of(hook, self)]:
                    del hooks[key]
                    module._forward_pre_hooks_with_kwargs.pop(key, None)


@dataclass(frozen=True, slots=True)
class _Now:
    """One forward pass of one adapter.

    Attributes:
        weights: [B, 1, 1] or [1, T, 1], how much of the adapter each row gets; None: all of it.
        is_off: Whether no row gets any.
        dropout: What the adapter does not get to see.
    """

    weights: Tensor | None = None
    is_off: bool = False
    dropout: Dropout | None = None


_NOW: ContextVar[Mapping[int, _Now]] = ContextVar("adapters now", default={})  # noqa: B039
_WANTED: ContextVar[Mapping[int, Any]] = ContextVar("logits wanted", default={})  # noqa: B039
"""By adapter the running pass, and where its logits are wanted: of this thread, whatever others
do. Nothing is written into these: every change is a mapping of its own."""


class _Running:
    """The running pass of this thread, for blocks that are computed again in another."""

    @property
    def now(self) -> Mapping[int, _Now]:
        """The pass, by adapter."""
        return _NOW.get()

    @now.setter
    def now(self, now: Mapping[int, _Now]) -> None:
        _NOW.set(now)


RUNNING = _Running()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Before the model runs: remember where logits are wanted."""

    board: Weighted
    model: PreTrainedModel

    def __call__(self, model: nn.Module, given: tuple[Any, ...], named: Asked) -> None:
        """A pre-hook."""
        keep = asked_of(model, given, named).get("logits_to_keep")
        _WANTED.set({**_WANTED.get(), id(self.board): keep})


@dataclass(frozen=True, slots=True)
class Begin:
    """Before the decoder runs: decide how much each row gets."""

    board: Weighted
    model: PreTrainedModel

    def __call__(self, decoder: nn.Module, given: tuple[Any, ...], named: Asked) -> Any:
        """A pre-hook."""
        asked = with_cache(self.model, asked_of(decoder, given, named))
        board = self.board
        wanted = _WANTED.get().get(id(board))
        _WANTED.set(_without(_WANTED.get(), board))
        board.begin(asked)
        if board.learns and torch.is_grad_enabled():
            now = _Now(dropout=board.dropout)
        else:
            weights = decided(self.model, board.owner, asked, wanted, board.decide)
            now = _Now(weights, not bool(weights.any()))
        _NOW.set({**_NOW.get(), id(board): now})
        remember(self.model, RUNNING)
        return (), asked


@dataclass(frozen=True, slots=True)
class End:
    """After the decoder ran: what follows is no part of this pass."""

    board: Weighted

    def __call__(self, *_: Any) -> None:
        """A hook."""
        _NOW.set(_without(_NOW.get(), self.board))


@dataclass(frozen=True, slots=True)
class Add:
    """After a linear ran: add what stands beside it, as much as each row gets."""

    board: Weighted
    part: LowRank

    def __call__(self, _: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A hook."""
        now = _NOW.get().get(id(self.board))
        if now is None:
            raise RuntimeError("a block of the model ran by itself: nothing was decided for it")
        if now.is_off:
            return output
        said: Tensor = self.part(given[0], now.dropout)
        if now.weights is None:
            return output + said.to(output.dtype)
        served = output + (now.weights * said).to(output.dtype)
        return torch.where(now.weights == 0, output, served)


def is_of(hook: Any, board: Weighted) -> bool:
    """Whether a hook is one of an adapter's."""
    return isinstance(hook, Wanted | Begin | End | Add) and hook.board is board


def linears_of(
    model: PreTrainedModel, told: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, LowRank]:
    """What a part says stands beside the linears of a model.

    Args:
        model: The model.
        told: ``linears``, their names, and ``scale``.
        tensors: ``{place}.a`` and ``{place}.b`` of each, in the order of the names.

    Raises:
        ValueError: When it is made for another model.
    """
    like: dict[str, Any] = {"device": model.device}
    like["dtype"] = torch.promote_types(model.dtype, torch.float32)
    linears = {}
    for place, name in enumerate(told["linears"]):
        a, b = (tensors[f"{place}.{one}"].to(**like) for one in "ab")
        linears[name] = LowRank(a, b, float(told["scale"]), place)
        linears[name].check_fits(model.get_submodule(name))
    return linears


def _without(passes: Mapping[int, Any], board: Weighted) -> dict[int, Any]:
    return {name: one for name, one in passes.items() if name != id(board)}
