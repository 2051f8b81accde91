"""A row beside the same row without what its answer rests on. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple


class Asked(NamedTuple):
    """One choice: at a position of a row, the answer's token against its rivals'."""

    at: int
    answer: int
    rivals: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Contrast:
    """A row, and the same row without what its answer rests on.

    Attributes:
        clean: Token ids of the row.
        corrupted: Token ids of the other.
        asked: The choices of the clean row.
    """

    clean: Sequence[int]
    corrupted: Sequence[int]
    asked: Sequence[Asked]


def aligned(one: Sequence[int], other: Sequence[int]) -> list[tuple[int, int]]:
    """Positions of two rows of tokens that stand for each other, in order.

    Rows of one length are aligned place by place. Others are by what they have in common; where
    some tokens stand in place of some others, the last of both are, as many as there are on both
    sides.

    Example:
        >>> aligned([1, 2, 3, 9], [1, 7, 9])
        [(0, 0), (2, 1), (3, 2)]
    """
    if len(one) == len(other):
        return [(at, at) for at in range(len(one))]
    matcher = SequenceMatcher(None, list(one), list(other), autojunk=False)
    found = []
    for _, start, end, first, last in matcher.get_opcodes():
        shared = min(end - start, last - first)
        found += [(end - back, last - back) for back in range(shared, 0, -1)]
    return found
