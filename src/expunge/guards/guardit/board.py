"""The push at work in a model: what each row is pushed by, at every position of one block."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from expunge.core.errors import ExpungeError
from expunge.engine.decisions import Held
from expunge.engine.guarding.desk import Desk
from expunge.engine.guarding.heard import Listener
from expunge.engine.guarding.ladder import Hit
from expunge.engine.guarding.passing import Board
from expunge.engine.recomputed import remember
from expunge.guards.guardit.directions import pushed
from expunge.guards.guardit.gate import Gate, Kept, Read
from expunge.lm.arch import Slots

if TYPE_CHECKING:
    from expunge.engine.guarding.desk import Arrays

_NOW: ContextVar[tuple[int, Tensor] | None] = ContextVar("guardit now", default=None)
"""The running pass of this thread: whose it is, and what its rows are pushed by."""


class _Running:
    """The running pass of this thread, for blocks that are computed again in another."""

    @property
    def now(self) -> Any:
        """The pass."""
        return _NOW.get()

    @now.setter
    def now(self, now: Any) -> None:
        _NOW.set(now)


RUNNING = _Running()


class Pushing(Board):
    """Pushes rows by vectors.

    Args:
        tokenizer: The model's.
        width: d.
        block: Whose output is pushed.
    """

    name = "guardit"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, width: int, block: int) -> None:
        self._listener, self._width, self._block = Listener(tokenizer), width, block

    @abstractmethod
    def shift(self, texts: Sequence[str]) -> "np.ndarray[Any, Any] | None":
        """[d], what a prompt is pushed by; None where the gate is silent."""

    def decide(self, prompts: Sequence[list[int]]) -> Tensor:
        """[n, d], what rows are pushed by; 0 for those that stay as they are."""
        found = torch.zeros(len(prompts), self._width)
        for at, prompt in enumerate(prompts):
            shift = self.shift(self._listener.hear(prompt).texts)
            if shift is not None:
                found[at] = torch.from_numpy(np.asarray(shift, dtype=np.float32))
        return found

    def begin(self, model: PreTrainedModel, asked: dict[str, Any], now: Held) -> dict[str, Any]:
        """Remember what the rows are pushed by."""
        _NOW.set((id(self), now.told[now.row]))
        remember(model, RUNNING)
        return asked

    def put_in(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Hook the push into a model.

        Raises:
            ExpungeError: ``E-MODEL-011`` for a model of another width or depth.
        """
        slots = Slots(model)
        if cast(Any, slots.embed).weight.shape[1] != self._width or self._block >= len(slots):
            raise ExpungeError(
                "E-MODEL-011",
                f"guardit was fitted to block {self._block} of a model {self._width} wide.",
                "that model, or one with its widths (quantised, for instance).",
                "Fit the guard again, in front of this model.",
            )
        decoder: nn.Module = cast(Any, model).get_decoder()
        return [
            *super().put_in(model),
            slots.blocks[self._block].register_forward_hook(Push(self)),
            decoder.register_forward_hook(End(self)),
        ]


@dataclass(frozen=True, slots=True)
class Push:
    """After the block ran: push its output."""

    board: Pushing

    def __call__(self, _: nn.Module, __: Any, output: Any) -> Any:
        """A hook."""
        now = _NOW.get()
        if now is None or now[0] != id(self.board):
            raise RuntimeError("a block of the model ran by itself: nothing was decided for it")
        if not bool(now[1].any()):
            return output
        if isinstance(output, tuple):
            return (pushed(output[0], now[1]), *output[1:])
        return pushed(output, now[1])


@dataclass(frozen=True, slots=True)
class End:
    """After the decoder ran: what follows is no part of this pass."""

    board: Pushing

    def __call__(self, *_: Any) -> None:
        """A hook."""
        _NOW.set(None)


class Fitted(Pushing):
    """Pushes by a gate that is given.

    Args:
        tokenizer: The model's.
        gate: The gate.
        coefficient: a.
        settings: What targets share.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        gate: Gate,
        coefficient: float,
        settings: Mapping[str, Any],
    ) -> None:
        super().__init__(tokenizer, int(settings["width"]), int(settings["block"]))
        self._gate, self._coefficient = gate, coefficient

    def shift(self, texts: Sequence[str]) -> "np.ndarray[Any, Any] | None":
        """The coefficient times the gate's vector."""
        weights = self._gate.weights(texts)
        return None if weights is None else self._coefficient * (weights @ self._gate.vectors)


class Serving(Pushing):
    """The guard at work on what its desk holds, whatever comes or goes.

    Args:
        tokenizer: The model's.
        desk: The guard's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, desk: Desk) -> None:
        super().__init__(tokenizer, int(desk.shared["width"]), int(desk.shared["block"]))
        self._gates, self._desk = gates_of(desk), desk

    def shift(self, texts: Sequence[str]) -> "np.ndarray[Any, Any] | None":
        """The coefficient times the gate's vector."""
        gate = self._gates.now()
        weights = None if gate is None else gate.weights(texts)
        if gate is None or weights is None:
            return None
        return float(self._desk.shared["coefficient"]) * (weights @ gate.vectors)


class Gates:
    """The gate over a desk's targets, made anew when they have changed.

    Args:
        desk: The guard's.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._reads: dict[str, tuple[Any, Read]] = {}
        self._made: tuple[list[Any], Any, Gate | None] = ([], None, None)

    def now(self) -> Gate | None:
        """The gate over the targets of this moment; None without any."""
        desk = self._desk
        entries, arrays = dict(desk.entries), desk.arrays
        own, known = list(entries.values()), self._made
        is_same = known[1] is arrays and len(own) == len(known[0])
        if is_same and all(a is b for a, b in zip(own, known[0], strict=True)):
            return known[2]
        self._reads = {id: self._read(id, entry) for id, entry in entries.items()}
        reads = [read for _, read in self._reads.values()]
        kept = kept_of(desk.shared, arrays)
        gate = None
        if reads:
            gate = Gate(reads, kept, desk.params, desk.means.secret, desk.means.seed)
        self._made = (own, arrays, gate)
        return gate

    def _read(self, id: str, entry: Any) -> tuple[Any, Read]:
        known = self._reads.get(id)
        return known if known and known[0] is entry else (entry, Read.of(id, entry))


def gates_of(desk: Desk) -> Gates:
    """The gate of a desk: one, for the model and for whoever asks what would fire."""
    found: Gates = vars(desk).setdefault("_guardit_gates", Gates(desk))
    return found


def hits(texts: Sequence[str], desk: Desk) -> list[Hit]:
    """The targets whose groups are active for some texts, the nearest first."""
    gate = gates_of(desk).now()
    weights, scores = (None, None) if gate is None else (gate.weights(texts), gate.scores(texts))
    if gate is None or weights is None or scores is None:
        return []
    best: dict[str, float] = {}
    for place in np.flatnonzero(weights):
        for target in gate.groups[place].target.split():
            best[target] = max(best.get(target, -np.inf), float(scores[place]))
    order = sorted(best.items(), key=lambda one: (-one[1], one[0]))
    return [Hit(target, desk.params.mode, score) for target, score in order]


def kept_of(settings: Mapping[str, Any], arrays: "Arrays") -> Kept:
    """What is known of what is to be let through, as it is stored."""
    shape = (len(arrays["prompts.starts"]) - 1, len(arrays["centre"]))
    parts = (arrays["prompts.values"].astype(float), arrays["prompts.places"])
    return Kept(
        hidden=arrays["hidden"].astype(float),
        norm=float(settings["norm"]),
        prompts=csr_array((*parts, arrays["prompts.starts"]), shape=shape),
        centre=arrays["centre"].astype(float),
        asked=settings["asked"],
    )


def reads_of(entries: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Read]:
    """Entries, read."""
    return [Read.of(id, entry) for id, entry in entries]
