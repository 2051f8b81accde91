"""Which of several processes this is, as their launcher says (no torch)."""

import os
from typing import NamedTuple


class Place(NamedTuple):
    """This process among those that ``torchrun`` or ``accelerate launch`` started.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        local: Its number on this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0


def place() -> Place:
    """The place the environment names; alone when it names none."""
    size = _number("WORLD_SIZE", 1)
    if size <= 1 or "RANK" not in os.environ:
        return Place()
    rank = _number("RANK", 0)
    return Place(rank, size, _number("LOCAL_RANK", rank))


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else default
