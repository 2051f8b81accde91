"""The experts of a whole model: how they get into its forward pass, and out of it again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from expunge.engine.first_pass import (
    Asked,
    FirstPass,
    asked_of,
    known_before,
    starts,
    with_cache,
)
from expunge.engine.recomputed import remember
from expunge.engine.runtime import Part, twin
from expunge.lm.low_rank import sizes_of
from expunge.methods.alter.entropy import of_a_guess, tsallis
from expunge.methods.alter.experts import Experts, Mixing, Router

NAME = "alter"
"""The module's name in a model that is being trained; a served one has it in its hooks alone."""

KEPT = -1
"""Stands among the numbers of sub-domains for rows that are to be kept."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What tells tokens apart.

    Attributes:
        q: Index of the entropy.
        threshold: Entropy above which a token is high.
        block: Block whose output in the first pass a hidden router looks at.
    """

    q: float
    threshold: float
    block: int


@dataclass(slots=True)
class _Now:
    """One forward pass: what it was asked, and how the experts are mixed in it."""

    asked: Asked
    past: int
    seats: Tensor | None
    mixing: Mixing | None = None


class Board(nn.Module):
    """Experts, router, and the first pass that tells them of each token.

    The gate of a token hangs on the entropy of the distribution it was drawn from: that of the
    first pass one position earlier. Where a row begins, everything is possible.

    Args:
        model: What the experts are to stand in; the first pass runs its weights alone.
        linears: Name of a linear of the model -> its experts.
        router: Mixes them.
        rules: What tells tokens apart.
        learns: Whether they are being trained: while gradients are taken, gates are those of the
            formula and every weight learns in its own place; else the rule of inference holds.

    Attributes:
        seats: [B, T], sub-domain of every position of the next passes; None: all rows are kept.
        now: The pass that is running.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        linears: Mapping[str, Experts],
        router: Router,
        rules: Rules,
        *,
        learns: bool,
    ) -> None:
        super().__init__()
        self.names = tuple(linears)
        self.experts = nn.ModuleList(linears.values())
        self.router, self.rules, self.learns = router, rules, learns
        self.seats: Tensor | None = None
        self.now: _Now | None = None
        self.guess = of_a_guess(model.config.get_text_config().vocab_size, rules.q)
        looks = {"output_hidden_states": True} if router.offset is not None else {}
        # In a tuple, so that the weights of its model are not taken for the board's own.
        self._handles: list[RemovableHandle] = []
        self._first = (FirstPass(model, twin(model, bare=True), self._noted, **looks),)

    def put_in(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Hook the experts into the model they were made for."""
        decoder: nn.Module = cast(Any, model).get_decoder()
        self._handles = [
            decoder.register_forward_pre_hook(_Begin(self, model), with_kwargs=True),
            decoder.register_forward_hook(_End(self)),
        ]
        for name, experts in zip(self.names, self._all, strict=True):
            linear = model.get_submodule(name)
            self._handles.append(linear.register_forward_hook(_Add(self, experts)))
        return self._handles

    def take_out(self, model: nn.Module) -> None:
        """Leave the model as it was before."""
        for handle in self._handles:
            handle.remove()
        delattr(model, NAME)

    def part(self) -> Part:
        """The experts as they are now, for the change."""
        tensors: dict[str, Tensor] = {"router": self.router.weight}
        if self.router.offset is not None:
            tensors["router.offset"] = self.router.offset
        for place, one in enumerate(self._all):
            tensors |= {f"{place}.a": one.a, f"{place}.b": one.b}
        settings = {
            "linears": list(self.names),
            "rank": self._all[0].rank,
            "scale": self._all[0].scale,
            "temperatures": list(self.router.temperatures),
            "top": self.router.top,
            **asdict(self.rules),
        }
        moves = sum(int(one.b.count_nonzero()) for one in self._all)
        copied = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        return Part(settings=settings, tensors=copied, moves=moves)

    @classmethod
    def of(cls, model: PreTrainedModel, part: Part) -> "Board":
        """The experts of a change, for the model they were trained for.

        Raises:
            ValueError: When their shapes are not those of its linears.
        """
        told, tensors = part.settings, part.tensors
        like: dict[str, Any] = {"device": model.device, "dtype": model.dtype}
        like["dtype"] = torch.promote_types(model.dtype, torch.float32)
        router = Router(
            tensors["router"].to(**like),
            tensors["router.offset"].to(**like) if "router.offset" in tensors else None,
            temperatures=(float(told["temperatures"][0]), float(told["temperatures"][1])),
            top=int(told["top"]),
        )
        rank, columns = int(told["rank"]), 1 + len(router.weight)
        linears = {}
        for place, name in enumerate(told["linears"]):
            a, b = (tensors[f"{place}.{one}"].to(**like) for one in "ab")
            inputs, outputs = sizes_of(model.get_submodule(name))
            if a.shape != (rank, inputs) or b.shape != (outputs, columns * rank):
                raise ValueError(f"experts of other sizes than {name}")
            linears[name] = Experts(a, b, slow=0.0, scale=float(told["scale"]))
        rules = Rules(float(told["q"]), float(told["threshold"]), int(told["block"]))
        board = cls(model, linears, router, rules, learns=False)
        return board.requires_grad_(False)

    def mixing(self) -> Mixing:
        """How the experts are mixed in the pass that is running.

        Raises:
            RuntimeError: When none is.
        """
        if self.now is None:
            raise RuntimeError("a block of the model ran by itself: the experts know no token")
        if self.now.mixing is None:
            self.now.mixing = self._mixed(self.now)
            self.now.asked = {}
        return self.now.mixing

    def overlap(self) -> Tensor:
        """How much the forget experts have in common: the sum over all layers."""
        return torch.stack([one.overlap() for one in self._all]).sum()

    @property
    def _all(self) -> Sequence[Experts]:
        return cast(Sequence[Experts], self.experts)

    def _noted(self, outputs: Any) -> Tensor:
        return tsallis(outputs.logits, self.rules.q)[..., None]

    def _mixed(self, now: _Now) -> Mixing:
        outputs, noted = self._first[0](now.asked)
        history = noted[..., 0]
        length = history.shape[1] - now.past
        before = nn.functional.pad(history[:, :-1], (1, 0), value=self.guess)[:, -length:]
        begins = starts(now.asked, length, now.past)
        entropy = torch.where(begins, self.guess, before)
        high = entropy > self.rules.threshold
        looked = entropy
        if self.router.offset is not None:
            looked = outputs.hidden_states[self.rules.block + 1]
        learning = self.learns and torch.is_grad_enabled()
        gates = self.router(entropy, looked, high, served=not learning)
        if not learning:
            return Mixing(gates, high)
        seats = torch.full_like(high, KEPT, dtype=torch.long) if now.seats is None else now.seats
        experts = torch.arange(KEPT, gates.shape[-1], device=seats.device)
        learn = (seats[..., None] == experts).to(gates.dtype)
        # A router that learnt from forget rows would learn to pass their experts by.
        gates = torch.where(seats[..., None] == KEPT, gates, gates.detach())
        return Mixing(gates, high, learn)


class Seated:
    """Forward passes inside are about forget rows; to be given to `View.changed`.

    Args:
        seats: [B, T] as the model gets to see the rows, the sub-domain of each position.

    Attributes:
        board: That of the model, once a pass has run, if it has one.
    """

    def __init__(self, seats: Tensor) -> None:
        self.seats = seats
        self.board: Board | None = None

    @contextmanager
    def __call__(self, model: Any) -> Iterator[None]:
        """The context for one model."""
        self.board = board_of(model)
        if self.board is not None:
            self.board.seats = self.seats
        try:
            yield
        finally:
            if self.board is not None:
                self.board.seats = None


def board_of(model: Any) -> Board | None:
    """The board a model is trained with, if it has one."""
    found = getattr(model, NAME, None)
    return found if isinstance(found, Board) else None


@dataclass(frozen=True, slots=True)
class _Begin:
    """Before the decoder runs: remember what it was asked."""

    board: Board
    model: PreTrainedModel

    def __call__(self, decoder: nn.Module, given: tuple[Any, ...], named: Asked) -> Any:
        asked = with_cache(self.model, asked_of(decoder, given, named))
        board = self.board
        board.now = _Now(asked, known_before(asked), board.seats)
        if board.learns and torch.is_grad_enabled():
            board.mixing()  # outside of what is computed again in a backward pass
        remember(self.model, board)
        return (), asked


@dataclass(frozen=True, slots=True)
class _End:
    """After the decoder ran: what follows is no part of this pass."""

    board: Board

    def __call__(self, *_: Any) -> None:
        self.board.now = None


@dataclass(frozen=True, slots=True)
class _Add:
    """After a linear ran: add what its experts say."""

    board: Board
    experts: Experts

    def __call__(self, _: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        said: Tensor = self.experts(given[0], self.board.mixing())
        return output + said.to(output.dtype)
