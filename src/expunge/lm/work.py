"""What answers and scores cost, counted rather than estimated."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from expunge.lm.arch import base_of


@dataclass(frozen=True, slots=True)
class Work:
    """What a model has done.

    Attributes:
        passes: Forward passes.
        rows: Rows of all passes together.
        tokens: Positions passed, padding included.
        scored: Tokens whose log-probability was computed.
        generated: Tokens written, the ending ones left out.
    """

    passes: int = 0
    rows: int = 0
    tokens: int = 0
    scored: int = 0
    generated: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


@dataclass(slots=True)
class Tally:
    """Adds up work.

    Attributes:
        work: All of it so far.
    """

    work: Work = field(default_factory=Work)

    def add(self, *, scored: int = 0, generated: int = 0) -> None:
        """Count tokens that came out."""
        self.work += Work(scored=scored, generated=generated)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Count every forward pass of a model, whoever calls it."""

        def count(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            ids = named["input_ids"] if "input_ids" in named else positional[0]
            self.work += Work(passes=1, rows=ids.shape[0], tokens=ids.numel())

        handle = base_of(model).register_forward_pre_hook(count, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
