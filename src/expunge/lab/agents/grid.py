"""A grid of 5 x 5 cells: names, neighbours and ways."""

import re
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import pairwise

SIDE = 5
Cell = tuple[int, int]
Way = tuple[Cell, ...]

CELLS: Way = tuple((row, column) for row in range(SIDE) for column in range(SIDE))

_NAME = re.compile(r"\bcell ([A-E])([1-5])\b", re.IGNORECASE)


def name_of(cell: Cell) -> str:
    """How a cell is called.

    Example:
        >>> name_of((1, 2))
        'cell B3'
    """
    return f"cell {'ABCDE'[cell[0]]}{cell[1] + 1}"


def cells_in(text: str) -> Way:
    """The cells that a text names, in order.

    Example:
        >>> cells_in("From cell A1 to Cell B3.")
        ((0, 0), (1, 2))
    """
    return tuple(
        ("ABCDE".index(row.upper()), int(column) - 1) for row, column in _NAME.findall(text)
    )


def told(way: Way) -> str:
    """A way in words."""
    return ", ".join(map(name_of, way))


def neighbours(cell: Cell) -> Way:
    """The cells beside a cell."""
    row, column = cell
    beside = ((row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column))
    return tuple(one for one in beside if one in CELLS)


def distance(one: Cell, other: Cell) -> int:
    """Steps between two cells where nothing is in the way."""
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


def is_way(way: Way, start: Cell, goal: Cell) -> bool:
    """Whether a way leads from one cell to another, step by step."""
    steps = pairwise(way)
    return (
        bool(way)
        and way[0] == start
        and way[-1] == goal
        and all(distance(*step) == 1 for step in steps)
    )


def cheapest(start: Cell, goal: Cell, cost: Callable[[Cell], float]) -> Way | None:
    """The way whose cells cost least, the start apart; of equals the first by its cells.

    Args:
        start: Where it begins.
        goal: Where it ends.
        cost: Of entering a cell; infinite where nobody may.
    """
    waiting: list[tuple[float, Way]] = [(0.0, (start,))]
    seen: set[Cell] = set()
    while waiting:
        spent, way = heappop(waiting)
        if way[-1] == goal:
            return way
        if way[-1] in seen:
            continue
        seen.add(way[-1])
        for cell in neighbours(way[-1]):
            if cost(cell) < float("inf"):
                heappush(waiting, (spent + cost(cell), (*way, cell)))
    return None
