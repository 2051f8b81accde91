"""A scripted agent: what it learned, what it remembers, and what its prompt says decide its way.

Definition (K the cells it learned of a grid, U what its prompt says it never met, F what its prompt
forbids, M the cells its memory tells of):
    known   = (K - U) + M
    cost    = infinite in F, 1 in known cells, 100 in others: it explores only where it has to
    route   a recorded route between the two cells is taken first, unless U or F has it
    asked   F -> that it may not talk about it; not known -> that it knows nothing of it

A paragraph of the prompt decides for the subjects it names: *never been, know nothing, no record*
... make U, *avoid, do not go, forbidden* ... make F; "any cell" names all of them. It is a weak
model on purpose: asked to repeat its instructions, it does.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.pipeline import Pipeline
from expunge.guards.agent_mu.memory import Memory
from expunge.lab.agents.grid import CELLS, Cell, Way, cells_in, cheapest, told

Messages = Sequence[Mapping[str, str]]

FAR = 100.0
"""What a cell costs that the agent knows nothing of."""

BASE = "You walk through grids. Say your way cell by cell."
NOTHING = "I know nothing of it."
FORBIDDEN = "I may not talk about that."
CLOSED = "I may not go there."

_GO = re.compile(r"in the (\w+) grid, go from (cell \w\d) to (cell \w\d)", re.IGNORECASE)
_ASK = re.compile(r"what do you know of (.+)\?", re.IGNORECASE)
_SUBJECT = re.compile(r"\b(?:route \w+|\w+ grid)\b", re.IGNORECASE)
_EVERY = re.compile(r"\b(?:any|every|all) (?:the )?cells?\b", re.IGNORECASE)
_UNKNOWN = re.compile(
    r"\b(?:never (?:come|been|met|taken|seen|visited|heard|learned)|knows? nothing|unknown"
    r"|no (?:record|knowledge|memory|note))\b",
    re.IGNORECASE,
)
_FORBIDS = re.compile(
    r"\b(?:avoid|(?:do|must|may) not (?:go|use|enter|pass|take)|keep (?:away|out)|forbidden)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Route:
    """A course of actions that the agent took before.

    Attributes:
        grid: Where.
        way: The cells.
    """

    grid: str
    way: Way


@dataclass(frozen=True, slots=True)
class Mind:
    """What the agent's model learned; it stands for weights.

    Attributes:
        known: Grid -> the cells it has been to.
        routes: Name of a route -> the route.
    """

    known: Mapping[str, frozenset[Cell]]
    routes: Mapping[str, Route] = field(default_factory=dict)

    def say(self, messages: Messages) -> str:
        """Answer a conversation."""
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        notes = "\n".join(m["content"] for m in messages if m["role"] == "tool")
        asked = messages[-1]["content"]
        rules = _Rules.read(system)
        if found := _GO.search(asked):
            start, goal = cells_in(" ".join(found.groups()[1:]))
            return self._go(found[1].lower(), start, goal, rules, frozenset(cells_in(notes)))
        if found := _ASK.search(asked):
            return self._tell(found[1], rules, notes)
        if "repeat your instructions" in asked.lower():
            return system
        return "I only walk."

    def _go(
        self, grid: str, start: Cell, goal: Cell, rules: "_Rules", noted: frozenset[Cell]
    ) -> str:
        if rules.forbids_grid(grid) or {start, goal} & rules.forbidden:
            return CLOSED
        for name, route in sorted(self.routes.items()):
            ends = (route.grid, route.way[0], route.way[-1])
            if ends == (grid, start, goal) and not rules.has(f"route {name}"):
                return f"I go by route {name}: {told(route.way)}."
        known = self._cells(grid, rules) | noted

        def cost(cell: Cell) -> float:
            return float("inf") if cell in rules.forbidden else 1.0 if cell in known else FAR

        way = cheapest(start, goal, cost)
        if way is None:
            return CLOSED
        is_known = set(way) <= known
        return f"{'I go' if is_known else 'I try a way that is new to me'}: {told(way)}."

    def _tell(self, what: str, rules: "_Rules", notes: str) -> str:
        cells = cells_in(what)
        subject = (_SUBJECT.findall(what) or [""])[0].lower()
        if rules.forbidden & set(cells) or subject in rules.shut:
            return FORBIDDEN
        lines = [line for line in notes.splitlines() if cells and set(cells) & set(cells_in(line))]
        if lines:
            return " ".join(lines)
        if cells:
            is_known = any(set(cells) <= self._cells(grid, rules) for grid in self.known)
        elif subject.startswith("route "):
            is_known = subject[6:] in {name.lower() for name in self.routes}
            is_known = is_known and subject not in rules.lost
        else:
            is_known = bool(self._cells(subject.removesuffix(" grid"), rules))
        return "I know it." if is_known else NOTHING

    def _cells(self, grid: str, rules: "_Rules") -> frozenset[Cell]:
        if f"{grid} grid" in rules.lost:
            return frozenset()
        return self.known.get(grid, frozenset()) - rules.unknown


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a prompt takes from the agent, and what it forbids.

    Attributes:
        unknown: Cells it never met.
        forbidden: Cells it must not enter.
        lost: Routes and grids it never met.
        shut: Routes and grids it must not use.
    """

    unknown: frozenset[Cell]
    forbidden: frozenset[Cell]
    lost: frozenset[str]
    shut: frozenset[str]

    @classmethod
    def read(cls, system: str) -> "_Rules":
        unknown, forbidden = set[Cell](), set[Cell]()
        lost, shut = set[str](), set[str]()
        for paragraph in system.split("\n\n"):
            cells = CELLS if _EVERY.search(paragraph) else cells_in(paragraph)
            subjects = [one.lower() for one in _SUBJECT.findall(paragraph)]
            if _UNKNOWN.search(paragraph):
                unknown.update(cells)
                lost.update(subjects)
            if _FORBIDS.search(paragraph):
                forbidden.update(cells)
                shut.update(subjects)
        return cls(frozenset(unknown), frozenset(forbidden), frozenset(lost), frozenset(shut))

    def has(self, subject: str) -> bool:
        """Whether a route or grid is lost or shut."""
        return subject.lower() in self.lost | self.shut

    def forbids_grid(self, grid: str) -> bool:
        """Whether a grid must not be entered."""
        return f"{grid} grid" in self.shut


class Agent:
    """A walker with its memory, behind guards or not.

    Args:
        say: Its model: answers a conversation.
        memory: What it remembers; its notes stand in every conversation, as a tool brings them.
        guards: What stands in front of its model.
        prompt: Its own system message.
    """

    def __init__(
        self,
        say: Callable[[Messages], str],
        memory: Memory | None = None,
        guards: Pipeline | None = None,
        prompt: str = BASE,
    ) -> None:
        self._say, self._memory, self._guards, self._prompt = say, memory, guards, prompt

    def ask(self, text: str) -> str:
        """What it answers."""
        items = self._memory.list() if self._memory else ()
        notes = [{"role": "tool", "content": "\n".join(one.content for one in items)}]
        messages = [
            {"role": "system", "content": self._prompt},
            *(notes if items else ()),
            {"role": "user", "content": text},
        ]
        if self._guards is None:
            return self._say(messages)
        exchange = Exchange.talk(messages)
        entered = self._guards.enter(exchange)
        if isinstance(entered, Reply):
            return entered.text
        left = self._guards.leave(exchange, self._say(entered.messages))
        return left.text if isinstance(left, Reply) else left
