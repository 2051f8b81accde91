"""The adapter at work in a model: what it is made of, and how much of it each row gets."""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from expunge.engine.decisions import came_before
from expunge.engine.first_pass import Asked
from expunge.engine.guarding.desk import Desk
from expunge.engine.guarding.heard import Listener
from expunge.engine.guarding.helped import read, waiting
from expunge.engine.guarding.inside import needed, seen_by
from expunge.engine.guarding.ladder import Hit
from expunge.engine.linears import linears_in
from expunge.engine.weighted import Weighted, linears_of
from expunge.guards.o3_serve.copies import level_of
from expunge.guards.o3_serve.gates import GUARD, Likely
from expunge.lm.arch import Slots
from expunge.lm.low_rank import Dropout, LowRank, sizes_of

METHOD = "o3"


class Live(LowRank):
    """What stands beside a linear: one for all copies of a model, so that it changes in all."""

    def __init__(self, a: Tensor, b: Tensor, scale: float, layer: int = 0) -> None:
        super().__init__(a, b, scale, layer)
        self._now: tuple[LowRank | None] = (None,)  # a tuple: no module of this one's own

    def __deepcopy__(self, _: dict[int, Any]) -> "Live":
        return self

    @classmethod
    def beside(cls, linear: nn.Module, like: Mapping[str, Any]) -> "Live":
        """One that adds nothing."""
        inputs, outputs = sizes_of(linear)
        return cls(torch.zeros(1, inputs, **like), torch.zeros(outputs, 1, **like), 1.0)

    def take(self, other: LowRank | None) -> None:
        """Become another one, from one pass to the next; None: add nothing."""
        self._now = (other,)

    def forward(self, x: Tensor, dropout: Dropout | None = None) -> Tensor:
        """What is added to the linear's output."""
        (now,) = self._now
        return super().forward(x, dropout) if now is None else now(x, dropout)


class Board(Weighted):
    """The adapter of all targets, and who gets how much of it.

    Args:
        model: What it stands in.
        tokenizer: The model's.
        desk: The guard's; looked at anew for every row.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, desk: Desk
    ) -> None:
        like = {
            "device": model.device,
            "dtype": torch.promote_types(model.dtype, torch.float32),
        }
        names = linears_in(Slots(model))
        linears = {name: Live.beside(model.get_submodule(name), like) for name in names}
        super().__init__(linears, owner=GUARD)
        self.requires_grad_(False)
        self._held = (model, desk, Listener(tokenizer))
        self._made_of: Mapping[str, Any] = {}
        self._lock = Lock()

    def __deepcopy__(self, _: dict[int, Any]) -> "Board":
        return self

    def begin(self, asked: Asked) -> None:
        """Take over an adapter that is new.

        Raises:
            RuntimeError: For rows that go on from keys and values of before the guard was there.
        """
        if came_before(asked, GUARD):
            raise RuntimeError("keys and values that were made before anything was decided")
        model, desk, _ = self._held
        with self._lock:
            if self._made_of is desk.shared:
                return
            made_of = desk.shared
            latest = read(desk, GUARD, METHOD)[-1:]
            linears = linears_of(model, latest[0].settings, latest[0].tensors) if latest else {}
            if unknown := sorted(linears.keys() - set(self.names)):
                raise ValueError(f"an adapter beside {unknown[0]}, which is no linear of a block")
            for name, part in zip(self.names, self.all, strict=True):
                other = linears.get(name)
                cast(Live, part).take(None if other is None else other.requires_grad_(False))
            self._made_of = made_of

    def decide(self, prompts: Sequence[list[int]]) -> Tensor:
        """[n], the largest weight that any target's gate gives each prompt.

        Raises:
            RuntimeError: Where one is about a target that the adapter does not know yet.
        """
        _, desk, listener = self._held
        if not desk.entries:
            return torch.zeros(len(prompts))
        encoder = needed(desk.means, GUARD).encoder
        asked: list[list[int]] = []
        owners: list[int] = []
        for at, ids in enumerate(prompts):
            others = [encoder.prompt(text) for text in listener.hear(ids).texts]
            for one in dict.fromkeys(map(tuple, (ids, *others))):
                asked.append(list(one))
                owners.append(at)
        best = [dict[str, float]() for _ in prompts]
        for at, weights in zip(owners, likely(desk).weights(asked), strict=True):
            _raise(best[at], weights)
        for at, ids in enumerate(prompts):
            _raise(best[at], {hit.target: hit.score for hit in seen_by(desk).of(ids)})
        return torch.tensor([self._settled(one) for one in best])

    def _settled(self, weights: Mapping[str, float]) -> float:
        """What a row gets, of the weights that the gates give it."""
        desk = self._held[1]
        cut = likely(desk).threshold
        fired = {id: w for id, w in weights.items() if w > cut and id in desk.entries}
        if waiting(desk, [Hit(id, GUARD, w) for id, w in fired.items()]):
            raise RuntimeError("a target was taken in, and the adapter does not know it yet")
        weight = max(fired.values(), default=0.0)
        return level_of(weight) if desk.params.levels else weight


def likely(desk: Desk) -> Likely:
    """The gates of a desk."""
    (rung,) = desk.ladder.rungs
    assert isinstance(rung, Likely)  # noqa: S101
    return rung


def _raise(best: dict[str, float], weights: Mapping[str, float]) -> None:
    for id, weight in weights.items():
        best[id] = max(weight, best.get(id, 0.0))
