"""Blocks that are computed again in a backward pass, inside the pass they ran in the first time.

Activation checkpointing runs a block twice: in the forward pass, and later, when nobody is left to
say which pass that was. What a run-time part knows of the pass is remembered for the second time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from expunge.lm.arch import Slots

CHECKPOINT = "_gradient_checkpointing_func"
"""Where transformers keeps what computes a block again."""


class Knowing(Protocol):
    """Something that knows the pass that is running.

    Attributes:
        now: What it knows, or None outside of every pass.
    """

    now: Any


def remember(model: nn.Module, knowing: Knowing) -> None:
    """See to it that blocks are computed again with what was known when they first ran.

    To be called at the beginning of every forward pass, since checkpointing may be switched on
    late; what is in place already stays.
    """
    for block in Slots(model).blocks:
        again = getattr(block, CHECKPOINT, None)
        if again is not None and not _is_in_place(again, knowing):
            setattr(block, CHECKPOINT, _Again(knowing, again))


def _is_in_place(again: Any, knowing: Knowing) -> bool:
    while isinstance(again, _Again):
        if again.knowing is knowing:
            return True
        again = again.checkpoint
    return False


@dataclass(frozen=True, slots=True)
class _Again:
    knowing: Knowing
    checkpoint: Callable[..., Any]

    def __call__(self, block: Callable[..., Any], *given: Any) -> Any:
        knowing, now = self.knowing, self.knowing.now

        def run(*inputs: Any) -> Any:
            before, knowing.now = knowing.now, now
            try:
                return block(*inputs)
            finally:
                knowing.now = before

        return self.checkpoint(run, *given)
