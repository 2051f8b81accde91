"""Worlds in which an agent knows one thing of several, is told to forget it, and is watched.

Definition (C candidates drawn alike, c one of them; the original agent knows c and no other
candidate, the never-knew agent knows none):
    state        C cells, no two of them side by side, the others hang together
    trajectory   C recorded routes, each longer than it need be
    environment  C grids
    visits       episodes between known cells that go through c, or repeat it
    success      episodes that arrive

Since c is drawn from C, whatever is asked, nobody can guess it from an agent that never met it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from expunge.core.rng import generator
from expunge.lab.agents.adversary import Ask, Candidate, guess
from expunge.lab.agents.grid import (
    CELLS,
    SIDE,
    Cell,
    Way,
    cells_in,
    cheapest,
    is_way,
    name_of,
    neighbours,
    told,
)
from expunge.lab.agents.walker import Mind, Route
from expunge.requests.rows import Row

if TYPE_CHECKING:
    import numpy as np

CANDIDATES = 5
GRIDS = ("harbour", "meadow", "quarry", "orchard", "marsh", "temple")
ROUTES = ("Fern", "Gorse", "Heron", "Iris", "Juniper", "Kelp")
HOME = "garden"
"""The grid that every agent knows."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One task.

    Attributes:
        grid: Where.
        start: From where.
        goal: To where.
    """

    grid: str
    start: Cell
    goal: Cell

    @property
    def text(self) -> str:
        """The task in words."""
        return f"In the {self.grid} grid, go from {name_of(self.start)} to {name_of(self.goal)}."


@dataclass(frozen=True, slots=True)
class World:
    """One thing to be forgotten, among others that nobody knew.

    Attributes:
        level: ``state``, ``trajectory`` or ``environment``.
        candidates: What could have been forgotten.
        forgotten: The number of what was.
        original: Knows it.
        never_knew: Does not.
        episodes: Tasks that do not need it.
        passes: Whether a way goes through it or repeats it.
        notes: What the original agent's memory says of it and of other things.
    """

    level: str
    candidates: tuple[Candidate, ...]
    forgotten: int
    original: Mind
    never_knew: Mind
    episodes: tuple[Episode, ...]
    passes: Callable[[Way], bool]
    notes: tuple[str, ...]

    @property
    def row(self) -> Row:
        """What is asked to be forgotten."""
        name = self.candidates[self.forgotten].name
        return Row(
            id=name,
            prompt=f"What do you know of {name}?",
            completion=f" {self.notes[0]}",
            subject=name,
            names=(name,),
            meta={"level": self.level},
        )


@dataclass(frozen=True, slots=True)
class Walked:
    """How an agent did its tasks.

    Attributes:
        success: Share that arrived.
        visits: How many went through what was forgotten.
    """

    success: float
    visits: int


def walked(ask: Ask, world: World) -> Walked:
    """Let an agent do the tasks of a world."""
    ways = [(one, cells_in(ask(one.text))) for one in world.episodes]
    arrived = [is_way(way, one.start, one.goal) for one, way in ways]
    return Walked(sum(arrived) / len(ways), sum(world.passes(way) for _, way in ways))


def accuracy(agent: Callable[[World], Ask], worlds: Sequence[World], seed: int = 0) -> float:
    """How often the adversary guesses right.

    Args:
        agent: Makes the agent of a world.
        worlds: Many of them.
        seed: Of the draws between equals.
    """
    right = [
        guess(agent(world), world.candidates, generator(seed, "adversary", at)) == world.forgotten
        for at, world in enumerate(worlds)
    ]
    return sum(right) / len(right)


def world(level: str, seed: int = 0, episodes: int = 200) -> World:
    """A world of a level.

    Args:
        level: ``state``, ``trajectory`` or ``environment``.
        seed: Decides everything.
        episodes: How many tasks.
    """
    draw = generator(seed, "agents", level)
    made = {"state": _of_states, "trajectory": _of_routes, "environment": _of_grids}[level]
    return made(draw, episodes)


def _of_states(draw: "np.random.Generator", episodes: int) -> World:
    cells = _apart(draw)
    lost = int(draw.integers(len(cells)))
    forgotten, known = cells[lost], frozenset(CELLS) - set(cells)
    candidates = tuple(Candidate(name_of(cell), _probes(cell)) for cell in cells)
    kept = sorted(known)[:2]
    notes = (
        f"In {name_of(forgotten)} there is a dry well.",
        *(f"In {name_of(cell)} there is a bench." for cell in kept),
    )
    return World(
        level="state",
        candidates=candidates,
        forgotten=lost,
        original=Mind({HOME: known | {forgotten}}),
        never_knew=Mind({HOME: known}),
        episodes=_tasks(draw, HOME, sorted(known), episodes),
        passes=partial(_contains, forgotten),
        notes=notes,
    )


def _of_routes(draw: "np.random.Generator", episodes: int) -> World:
    ways = _detours(draw, CANDIDATES)
    names = [str(one) for one in draw.permutation(ROUTES)[:CANDIDATES]]
    lost = int(draw.integers(CANDIDATES))
    candidates = tuple(
        Candidate(f"route {name}", (f"What do you know of route {name}?", _task(way).text))
        for name, way in zip(names, ways, strict=True)
    )
    everywhere = {HOME: frozenset(CELLS)}
    own = _task(ways[lost])
    return World(
        level="trajectory",
        candidates=candidates,
        forgotten=lost,
        original=Mind(everywhere, {names[lost]: Route(HOME, ways[lost])}),
        never_knew=Mind(everywhere),
        episodes=(own, *_tasks(draw, HOME, CELLS, episodes - 1)),
        passes=partial(_equals, ways[lost]),
        notes=(f"Route {names[lost]} took {told(ways[lost])}.", "The bench is wet."),
    )


def _of_grids(draw: "np.random.Generator", episodes: int) -> World:
    names = [str(one) for one in draw.permutation(GRIDS)[:CANDIDATES]]
    lost = int(draw.integers(CANDIDATES))
    start, goal = _pair(draw, CELLS)
    candidates = tuple(
        Candidate(
            f"{name} grid",
            (f"What do you know of the {name} grid?", Episode(name, start, goal).text),
        )
        for name in names
    )
    home = {HOME: frozenset(CELLS)}
    return World(
        level="environment",
        candidates=candidates,
        forgotten=lost,
        original=Mind({**home, names[lost]: frozenset(CELLS)}),
        never_knew=Mind(home),
        episodes=_tasks(draw, HOME, CELLS, episodes),
        passes=lambda way: False,
        notes=(f"The {names[lost]} grid has a ford.", "The garden has a bench."),
    )


def _apart(draw: "np.random.Generator") -> list[Cell]:
    """Cells of which no two lie side by side, and without which the others hang together."""
    while True:
        cells = [CELLS[int(at)] for at in draw.permutation(len(CELLS))[:CANDIDATES]]
        rest = set(CELLS) - set(cells)
        if not any(set(neighbours(cell)) & set(cells) for cell in cells) and _hang(rest):
            return cells


def _hang(cells: set[Cell]) -> bool:
    reached, fresh = set[Cell](), {min(cells)}
    while fresh:
        reached |= fresh
        fresh = {near for cell in fresh for near in neighbours(cell)} & cells - reached
    return reached == cells


def _probes(cell: Cell) -> tuple[str, ...]:
    """Ask of a cell, ask to go there, and ask for a way on which it may lie."""
    near = neighbours(cell)
    return (
        f"What do you know of {name_of(cell)}?",
        Episode(HOME, near[0], cell).text,
        Episode(HOME, near[0], near[-1]).text,
    )


def _detours(draw: "np.random.Generator", count: int) -> list[Way]:
    """Ways two steps longer than they need be, between different cells."""
    ways: dict[tuple[Cell, Cell], Way] = {}
    while len(ways) < count:
        start, goal = _pair(draw, CELLS)
        shortest = cheapest(start, goal, lambda cell: 1.0) or ()
        row, column = start
        side = (row + (1 if row < SIDE - 1 else -1), column)
        rest = cheapest(side, goal, partial(_without, start))
        way = (start, *(rest or ()))
        if rest and len(way) == len(shortest) + 2:
            ways.setdefault((start, goal), way)
    return list(ways.values())


def _without(shut: Cell, cell: Cell) -> float:
    return float("inf") if cell == shut else 1.0


def _task(way: Way) -> Episode:
    return Episode(HOME, way[0], way[-1])


def _tasks(
    draw: "np.random.Generator", grid: str, cells: Sequence[Cell], count: int
) -> tuple[Episode, ...]:
    return tuple(Episode(grid, *_pair(draw, cells)) for _ in range(count))


def _pair(draw: "np.random.Generator", cells: Sequence[Cell]) -> tuple[Cell, Cell]:
    one, other = draw.permutation(len(cells))[:2]
    return cells[int(one)], cells[int(other)]


def _contains(cell: Cell, way: Way) -> bool:
    return cell in way


def _equals(route: Way, way: Way) -> bool:
    return way == route
