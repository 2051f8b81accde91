"""What a model has already said and what was already scored, so that neither is done twice."""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from torch import nn

Value = TypeVar("Value")
Stamp = tuple[object, ...]

LIMIT = 2**24
"""Bytes of keys that are held; what is kept under them takes about as much."""


class Memory:
    """Values under the token ids that they were computed from.

    When it is full, what was kept first goes first.

    Args:
        limit: Most bytes of keys.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit, self._held = limit, 0
        self._kept: dict[bytes, object] = {}
        self._stamp: Stamp = ()

    def valid_for(self, stamp: Stamp) -> "Memory":
        """This memory, emptied where it comes from another state of the model."""
        if stamp != self._stamp:
            self._kept.clear()
            self._held, self._stamp = 0, stamp
        return self

    def recall(
        self,
        keys: Sequence[bytes],
        make: Callable[[list[int]], Sequence[Value]],
        enough: Callable[[Value], bool] = lambda _: True,
    ) -> list[Value]:
        """What is kept under some keys; what is missing is made, each thing once.

        Args:
            keys: One for each value asked for; equal keys stand for equal values.
            make: Places in ``keys`` -> their values.
            enough: Whether a kept value answers the question.

        Returns:
            The values, in the order of ``keys``.
        """
        found: dict[bytes, Value] = {}
        missing: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            kept: Value | None = self._kept.get(key)  # type: ignore[assignment]
            if kept is not None and enough(kept):
                found[key] = kept
            else:
                missing.setdefault(key, place)
        if missing:
            made = dict(zip(missing, make(list(missing.values())), strict=True))
            self.keep(made)
            found |= made
        return [found[key] for key in keys]

    def known(self, key: bytes) -> object | None:
        """What is kept under a key."""
        return self._kept.get(key)

    def keep(self, made: Mapping[bytes, object]) -> None:
        """Keep values under their keys, in the place of what was kept there."""
        for key, value in made.items():
            self._held += 0 if key in self._kept else len(key)
            self._kept[key] = value
        while self._held > self._limit:
            oldest = next(iter(self._kept))
            self._held -= len(oldest)
            del self._kept[oldest]


def key_of(kind: str, *ids: Iterable[int]) -> bytes:
    """A key of some lists of token ids; lists cut elsewhere give another key."""
    lists = [list(part) for part in ids]
    lengths = (len(part) for part in lists)
    return kind.encode() + array("q", chain(lengths, *lists)).tobytes()


def stamp_of(model: nn.Module) -> Stamp:
    """Changes with every optimiser step, new tensor and hook, and costs next to nothing.

    Weights changed behind autograd's back, through ``.data``, do not show in it.
    """
    tensors = chain(model.parameters(), model.buffers())
    weights = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
    hooks = tuple(
        hook
        for module in model.modules()
        for hook in (*module._forward_pre_hooks, *module._forward_hooks)
    )
    return (weights, hooks)
