"""Rows without what their answers rest on: other items, other people, other questions."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from expunge.core.errors import ExpungeError
from expunge.core.rng import generator
from expunge.data.encode import Encoded
from expunge.engine.datasets import wordings_of
from expunge.engine.task import Task
from expunge.methods.cure.graph import Graph, items_of, user_of
from expunge.requests.names import names_of
from expunge.requests.rows import Row, Turn
from expunge.text.normalise import normalise

if TYPE_CHECKING:
    from expunge.methods.cure import Params

TRIES = 8
"""Corrupted rows that are made for one, to find one of its length in tokens."""

POOL = 1000
"""Rows of each role that give items, names and prompts, at most."""


@dataclass(frozen=True, slots=True)
class Corrupted:
    """A row without what its answer rests on.

    Attributes:
        turn: What is said.
        item: The same as tokens.
        by: ``pagerank`` or ``users`` (items replaced), ``names``, ``prompts``.
    """

    turn: Turn
    item: Encoded
    by: str


class Corruptions:
    """Makes corrupted rows; the first that works of the ways `Corrupted.by` lists.

    Args:
        task: Its rows are the pool others are drawn from.
        params: Of them ``graph``, ``restart``, ``low``, ``corruptions`` and ``labels``.
    """

    def __init__(self, task: Task, params: "Params") -> None:
        self._task, self._params = task, params
        self._rows = [row for rows in task.roles.values() for row in rows[:POOL]]
        self._names = names_of(self._rows)
        self._graph = _graph_of(self._rows, params.graph)
        self._far: dict[tuple[str | None, tuple[str, ...]], list[str]] = {}
        self._lengths: dict[str, int] = {}
        self.made: Counter[str] = Counter()

    def of(self, row: Row, wording: int, item: Encoded) -> list[Corrupted]:
        """``corruptions`` corrupted rows of one wording of a row.

        Raises:
            ExpungeError: ``E-USE-006`` where there is nothing to take its place.
        """
        found = [
            one
            for number in range(self._params.corruptions)
            if (one := self._one(row, wording, item, number)) is not None
        ]
        if not found:
            raise ExpungeError(
                "E-USE-006",
                f"cure finds nothing that row {row.id!r} could be asked in place of.",
                "rows of other users, of other names or with other questions.",
                "Give --retain rows of the same kind, or use another method.",
            )
        self.made.update(one.by for one in found)
        return found

    def _one(self, row: Row, wording: int, item: Encoded, number: int) -> Corrupted | None:
        """The first try of the item's length, else the nearest, of the first way that works."""
        turn = wordings_of(row)[wording]
        names: tuple[str | int, ...] = ("cure", "corrupted", row.id, wording, number)
        for by, tries in (
            ("items", self._other_items(row, turn, names)),
            ("names", self._other_names(row, turn, names)),
            ("prompts", self._other_prompts(row, turn, wording, names)),
        ):
            best: Corrupted | None = None
            for one in islice(self._encoded(turn, tries, by), TRIES):
                if best is None or _gap(one, item) < _gap(best, item):
                    best = one
                if not _gap(best, item):
                    break
            if best is not None:
                return best
        return None

    def _encoded(
        self, turn: Turn, tries: Iterator[tuple[Turn, str]], by: str
    ) -> Iterator[Corrupted]:
        """Those that differ and that the model has positions for."""
        for other, told in tries:
            if other != turn:
                with suppress(ExpungeError):
                    yield Corrupted(other, self._task.encoder.encode(other), told or by)

    def _other_items(
        self, row: Row, turn: Turn, names: Sequence[str | int]
    ) -> Iterator[tuple[Turn, str]]:
        """The history of somebody else: each title gives way to one of its length, if there is."""
        own = [title for title in items_of(row) if _stands_in(title, turn)]
        if not own:
            return
        far, by = self._candidates(row)
        for attempt in range(TRIES):
            order = generator(self._task.seed, *names, "items", attempt).permutation(len(far))
            left = [far[place] for place in order]
            words = {}
            for title in own[: len(left)]:
                size = self._length(title)
                best = min(left, key=lambda other: abs(self._length(other) - size))
                words[title] = best
                left.remove(best)
            if len(words) == len(own):
                yield _mapped(turn, words), by

    def _candidates(self, row: Row) -> tuple[list[str], str]:
        """Titles that may take the place of a row's own, and who says so."""
        own = tuple(items_of(row))
        key = (user_of(row), own)
        if self._graph is not None:
            if key not in self._far:
                params = self._params
                self._far[key] = self._graph.far_from(
                    *key, restart=params.restart, share=params.low, seed=self._task.seed
                )
            if len(self._far[key]) >= len(own):
                return self._far[key], "pagerank"
        others = (other for other in self._rows if user_of(other) != key[0])
        titles = dict.fromkeys(title for other in others for title in items_of(other))
        return [title for title in titles if title not in own], "users"

    def _other_names(
        self, row: Row, turn: Turn, names: Sequence[str | int]
    ) -> Iterator[tuple[Turn, str]]:
        own = [name for name in self._names.get(row.id, ()) if _stands_in(name, turn)]
        if not own:
            return
        for other in self._others(row, (*names, "names")):
            theirs = self._names[other.id]
            if theirs and not set(theirs) & set(self._names[row.id]):
                words = {name: theirs[min(at, len(theirs) - 1)] for at, name in enumerate(own)}
                yield _mapped(turn, words), ""

    def _other_prompts(
        self, row: Row, turn: Turn, wording: int, names: Sequence[str | int]
    ) -> Iterator[tuple[Turn, str]]:
        """Another row's prompt; of running text, another row's text."""
        for other in self._others(row, (*names, "prompts")):
            wordings = wordings_of(other)
            theirs = wordings[min(wording, len(wordings) - 1)]
            if turn.running and theirs.running:
                yield theirs, ""
            elif type(theirs.prompt) is type(turn.prompt) and not theirs.running | turn.running:
                yield replace(turn, prompt=theirs.prompt), ""

    def _others(self, row: Row, names: Sequence[str | int]) -> Iterator[Row]:
        """The other rows in an order of the row's own, without those of the same answer.

        Labels are the same answer to other questions.
        """
        own = {normalise(form) for form in row.forms}
        labels = {normalise(label) for label in self._params.labels}
        for place in generator(self._task.seed, *names).permutation(len(self._rows)):
            other = self._rows[place]
            said = normalise(other.value)
            if other.id != row.id and (said not in own or said in labels):
                yield other

    def _length(self, title: str) -> int:
        if title not in self._lengths:
            ids = self._task.tokenizer(f" {title}", add_special_tokens=False)["input_ids"]
            self._lengths[title] = len(ids)
        return self._lengths[title]


def _gap(one: Corrupted, item: Encoded) -> int:
    return abs(len(one.item.ids) - len(item.ids))


def _graph_of(rows: Sequence[Row], graph: str) -> Graph | None:
    """The graph of the rows (``auto``), of a file, or none; none where it has no edge."""
    if graph == "none":
        return None
    made = Graph.of_rows(rows) if graph == "auto" else Graph.read(graph)
    return made if made.items else None


def _stands_in(words: str, turn: Turn) -> bool:
    return _mapped(turn, {words: "\ue000"}) != turn


def _mapped(turn: Turn, words: Mapping[str, str]) -> Turn:
    """A turn with other words in its prompt; of running text, in all of it."""
    longest = sorted(map(re.escape, words), key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(longest)})(?!\w)")

    def told(text: str) -> str:
        return pattern.sub(lambda found: words[found[0]], text)

    if turn.running:
        return replace(turn, completion=told(turn.completion))
    if isinstance(turn.prompt, str):
        return replace(turn, prompt=told(turn.prompt))
    messages = tuple({**one, "content": told(one["content"])} for one in turn.prompt)
    return replace(turn, prompt=messages)
