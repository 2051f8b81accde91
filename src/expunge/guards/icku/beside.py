"""What stands beside the model: two rows of the embedding, and what learnt to read them.

It works in rows whose prompt holds the first of the two tokens, and in no other: which rows these
are is settled once, before the first block reads them, and kept with the cache
(`expunge.engine.decisions`). The tokens have no rows in the embedding matrix and none in the head,
so both stay as they are and the model cannot say the tokens.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from expunge.core.rng import generator
from expunge.engine.decisions import Held
from expunge.engine.first_pass import Asked, asked_of
from expunge.engine.guarding.passing import Board
from expunge.engine.linears import linears_in
from expunge.engine.recomputed import remember
from expunge.engine.runtime import twin
from expunge.lm.arch import Slots
from expunge.lm.low_rank import Dropout, LowRank

if TYPE_CHECKING:
    import numpy.typing as npt

    from expunge.guards.icku import Params

QUERY_AND_VALUE = ("q_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn")
"""Linears that get a low-rank matrix unless others are named: queries and values, or what holds
them."""


@dataclass(frozen=True, slots=True, eq=False)
class Added:
    """A low-rank matrix beside a linear of the model.

    Attributes:
        low: The matrix.
    """

    low: LowRank

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Its weights."""
        return {"a": self.low.a, "b": self.low.b}

    def __call__(self, given: tuple[Any, ...], output: Tensor, dropout: Dropout | None) -> Tensor:
        """What is said instead of ``output``."""
        said: Tensor = self.low(given[0], dropout)
        return output + said.to(output.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Other:
    """A layer of the model with weights of its own, in the place of the model's.

    Attributes:
        layer: The layer, in a module of its own.
    """

    layer: nn.Module

    @classmethod
    def of(cls, layer: nn.Module, weights: Mapping[str, nn.Parameter]) -> "Other":
        """A layer of the model with other weights, by their names in it."""
        own = twin(layer, bare=True)
        own._parameters.update(weights)
        return cls(own)

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Its weights."""
        return _own(self.layer)

    def __call__(self, given: tuple[Any, ...], output: Tensor, dropout: Dropout | None) -> Tensor:
        """What is said instead of ``output``."""
        said: Tensor = self.layer(*given)
        return said


Part = Added | Other


class Beside(Board):
    """All that stands beside one model.

    Args:
        tokens: Ids of the two tokens.
        rows: [2, d], what the embedding says of them.
        parts: Name of a module of the model -> what stands beside it.
        head: Name of the head.

    Attributes:
        dropout: What low-rank matrices do not get to see in the next passes.
    """

    name = "icku"

    def __init__(
        self, tokens: Sequence[int], rows: Tensor, parts: Mapping[str, Part], head: str
    ) -> None:
        self.tokens, self.rows = tuple(tokens), nn.Parameter(rows)
        self.parts, self.head = dict(parts), head
        self.dropout: Dropout | None = None

    @property
    def weights(self) -> list[nn.Parameter]:
        """All that can be trained, each once."""
        every = [self.rows, *(one for part in self.parts.values() for one in part.weights.values())]
        return list({id(one): one for one in every}.values())

    def decide(self, prompts: Sequence[list[int]]) -> Tensor:
        """[n, 1], 1 for the prompts that hold the first of the tokens, else 0."""
        return torch.tensor([[float(self.tokens[0] in prompt)] for prompt in prompts])

    def begin(self, model: PreTrainedModel, asked: dict[str, Any], now: Held) -> dict[str, Any]:
        """Find the tokens, and put in their place one that the embedding matrix has."""
        fired = now.told[:, 0][now.row] > 0
        ids: Tensor | None = asked.get("input_ids")
        places = torch.zeros_like(now.place)
        if ids is not None:
            for number, token in enumerate(self.tokens, start=1):
                places = places.masked_fill(ids == token, number)
            asked = {**asked, "input_ids": ids.masked_fill(places > 0, 0)}
        _set(self, _Now(places, fired[..., None], not bool(fired.any()), _KEPT.get(None)))
        remember(model, RUNNING)
        return asked

    def put_in(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Hook it into the model it was made for."""
        handles = [
            model.register_forward_pre_hook(Kept(), with_kwargs=True),
            *super().put_in(model),
            model.register_forward_hook(End(self), always_call=True),
        ]
        blocks = f"{Slots(model).prefix}."
        for name, part in self.parts.items():
            hook = Replace(self, part, name == self.head, name.startswith(blocks))
            handles.append(model.get_submodule(name).register_forward_hook(hook))
        # Last, for what stands in the place of the embedding does not know the tokens either.
        return [*handles, Slots(model).embed.register_forward_hook(Rows(self))]


@dataclass(frozen=True, slots=True)
class _Now:
    """One forward pass.

    Attributes:
        places: [B, T], 1 and 2 where the tokens stand, else 0.
        fired: [B, 1, 1] or [1, T, 1] bool, the rows that get what stands beside the model.
        is_off: Whether no row gets it.
        keep: Where logits are wanted, as the model was told.
    """

    places: Tensor
    fired: Tensor
    is_off: bool
    keep: Any


_NOW: ContextVar[Mapping[int, _Now]] = ContextVar("icku now")
"""Board -> the running pass of this thread."""

_KEPT: ContextVar[Any] = ContextVar("where logits are wanted")


class _Running:
    """The running pass of this thread, for blocks that are computed again in another."""

    @property
    def now(self) -> Mapping[int, _Now]:
        """The pass, by board."""
        return _NOW.get({})

    @now.setter
    def now(self, now: Mapping[int, _Now]) -> None:
        _NOW.set(now)


RUNNING = _Running()


def _set(board: Beside, now: _Now | None) -> None:
    others = {at: one for at, one in _NOW.get({}).items() if at != id(board)}
    _NOW.set(others if now is None else {**others, id(board): now})


@dataclass(frozen=True, slots=True)
class Kept:
    """Before the model runs: remember where logits are wanted."""

    def __call__(self, model: nn.Module, given: tuple[Any, ...], named: Asked) -> None:
        """A pre-hook."""
        _KEPT.set(asked_of(model, given, named).get("logits_to_keep"))


@dataclass(frozen=True, slots=True)
class End:
    """After the model ran: what follows is no part of this pass."""

    board: Beside

    def __call__(self, *_: Any) -> None:
        """A hook."""
        _set(self.board, None)


@dataclass(frozen=True, slots=True)
class Rows:
    """After the embedding: put the rows of the two tokens where these stand."""

    board: Beside

    def __call__(self, _: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
        """A hook."""
        now = _NOW.get({}).get(id(self.board))
        if now is None or now.places.shape != output.shape[:-1] or not bool(now.places.any()):
            return output
        own = self.board.rows[(now.places - 1).clamp(min=0)].to(output.dtype)
        return torch.where(now.places[..., None] > 0, own, output)


@dataclass(frozen=True, slots=True)
class Replace:
    """After a module of the model: what stands beside it speaks for the rows that get it."""

    board: Beside
    part: Part
    is_head: bool
    is_inside: bool

    def __call__(self, _: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
        """A hook."""
        now = _NOW.get({}).get(id(self.board))
        if now is None and self.is_inside:
            raise RuntimeError("a block of the model ran by itself: nothing was decided for it")
        if now is None or now.is_off:  # norm and head are also asked by whoever reads states out
            return output
        said = self.part(given, output, self.board.dropout)
        if bool(now.fired.all()):
            return said
        fired = _kept(now.fired, now.keep, now.places.shape) if self.is_head else now.fired
        return torch.where(_over_heads(fired, output), said, output)


def _over_heads(fired: Tensor, output: Tensor) -> Tensor:
    """The rows as they stand in what a module says: norms of queries and keys see heads apart."""
    if output.ndim <= fired.ndim:
        return fired
    before = output.shape[1] != fired.shape[1] and fired.shape[1] > 1  # [B, heads, T, d]
    return fired[:, None] if before else fired[..., None]


def _kept(fired: Tensor, keep: Any, shape: Sequence[int]) -> Tensor:
    """Which of the head's positions belong to rows that get it, as the head gets to see them."""
    spread = fired.expand(*shape, 1)
    if isinstance(keep, Tensor) and keep.ndim == 2:
        if keep.dtype == torch.bool:
            return spread[keep]
        return torch.take_along_dim(spread, keep[..., None], 1)
    if isinstance(keep, Tensor):
        return spread[:, keep]
    return spread[:, -int(keep) :] if keep else spread


def made(model: PreTrainedModel, tokens: Sequence[int], params: "Params", seed: int) -> Beside:
    """What stands beside a model before it is trained: it says nothing new but of the two tokens.

    Args:
        model: The model.
        tokens: Ids of the two tokens.
        params: Of the guard.
        seed: Decides the first rows, and the first low-rank matrices.
    """
    slots = Slots(model)
    parts: dict[str, Part] = {}
    if params.train == "lora":
        names = linears_in(slots, None, params.lora_targets or QUERY_AND_VALUE)
        for place, name in enumerate(names):
            module = model.get_submodule(name)
            low = LowRank.new(module, params.lora_r, params.lora_alpha, place, seed, name)
            parts[name] = Added(low)
    else:
        last = tuple(f"{slots.names(layer, 'block')[0]}." for layer in range(-2, 0))
        inside = ("",) if params.train == "full" else last[-len(slots) :]
        parts = _copied({n: one for n, one in _layers(model).items() if n.startswith(inside)})
    return Beside(tokens, _first_rows(model, seed), parts, _head_of(model))


def opened(
    model: PreTrainedModel,
    told: Mapping[str, Any],
    arrays: "Mapping[str, npt.NDArray[Any]]",
) -> Beside:
    """What stands beside a model, as `stored` gave it.

    Raises:
        KeyError: When something is missing.
        ValueError: When it is not made for the model.
    """
    is_low = told["kind"] == "lora"
    dtype = torch.promote_types(model.dtype, torch.float32)
    every = {name: torch.from_numpy(one).to(model.device, dtype) for name, one in arrays.items()}
    rows = every.pop("rows")
    if rows.shape != _said(model, [0, 0]).shape:
        raise ValueError(f"rows of the embedding {tuple(rows.shape)}")
    held = {n: nn.Parameter(one if is_low else one.to(model.dtype)) for n, one in every.items()}
    parts: dict[str, Part] = {}
    for place, (name, weights) in enumerate(told["parts"].items()):
        module, own = model.get_submodule(name), {leaf: held[at] for leaf, at in weights.items()}
        if is_low:
            low = LowRank(own["a"].data, own["b"].data, float(told["scale"]), place)
            low.check_fits(module)
            parts[name] = Added(low)
        elif {n: one.shape for n, one in own.items()} != _shapes(module):
            raise ValueError(f"weights of {name}")
        else:
            parts[name] = Other.of(module, own)
    board = Beside([int(one) for one in told["tokens"]], rows, parts, _head_of(model))
    for weight in board.weights:
        weight.requires_grad_(False)
    return board


def stored(board: Beside) -> "tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]":
    """Settings and arrays that `opened` reads; a weight that is tied to another is stored once."""
    arrays, known, parts = {"rows": _array(board.rows)}, dict[int, str](), {}
    for name, part in board.parts.items():
        parts[name] = {
            leaf: known.setdefault(id(one), f"{name}.{leaf}") for leaf, one in part.weights.items()
        }
        for leaf, weight in part.weights.items():
            if parts[name][leaf] == f"{name}.{leaf}":
                arrays[f"{name}.{leaf}"] = _array(weight)
    scales = [part.low.scale for part in board.parts.values() if isinstance(part, Added)]
    kind = {"kind": "lora", "scale": scales[0]} if scales else {"kind": "layers"}
    return {"tokens": list(board.tokens), "parts": parts, **kind}, arrays


def _array(weight: Tensor) -> "npt.NDArray[Any]":
    plain = weight.detach().cpu()
    wide = torch.promote_types(plain.dtype, torch.float32)
    found: npt.NDArray[Any] = plain.to(wide).numpy().copy()
    return found


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of a model that hold weights themselves."""
    return {name: module for name, module in model.named_modules() if _own(module)}


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters(recurse=False))


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: one.shape for name, one in _own(module).items()}


def _copied(layers: Mapping[str, nn.Module]) -> dict[str, Part]:
    """Each layer with a copy of its weights; what is one weight in the model is one here."""
    every = {id(one): one for module in layers.values() for one in _own(module).values()}
    copies = {at: nn.Parameter(one.detach().clone()) for at, one in every.items()}
    return {
        name: Other.of(module, {leaf: copies[id(one)] for leaf, one in _own(module).items()})
        for name, module in layers.items()
    }


def _head_of(model: nn.Module) -> str:
    head = Slots(model).head
    found: str = next(name for name, module in model.named_modules() if module is head)
    return found


def _first_rows(model: PreTrainedModel, seed: int) -> Tensor:
    """[2, d], drawn with the mean and the width of what the embedding says of all its tokens."""
    every = _said(model, range(len(cast(Tensor, Slots(model).embed.weight))))
    drawn = generator(seed, "icku", "rows").standard_normal((2, every.shape[1]))
    return every.mean(0) + every.std() * torch.from_numpy(drawn).to(every)


@torch.no_grad()
def _said(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """[n, d], what the embedding says of some tokens, in at least float32."""
    said: Tensor = Slots(model).embed(torch.tensor(list(ids), device=model.device))
    return said.to(torch.promote_types(said.dtype, torch.float32))
