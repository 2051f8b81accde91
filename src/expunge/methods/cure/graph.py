"""Who has dealt with what: users and items, and the items that are far from a user. No torch."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from expunge.core.errors import ExpungeError, raise_all
from expunge.core.rng import derive
from expunge.data.jsonl import lines_of
from expunge.data.strict_json import parse_line
from expunge.requests.rows import Row
from expunge.text.pagerank import personalised


@dataclass
class Graph:
    """Users and items, with an edge wherever one has dealt with the other.

    Attributes:
        edges: User -> items, without order.
    """

    edges: dict[str, dict[str, None]] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: Iterable[Row]) -> "Graph":
        """The graph that rows tell of themselves: their users and the items of their histories."""
        made = cls()
        for row in rows:
            made.add(user_of(row), items_of(row))
        return made

    @classmethod
    def read(cls, path: str | Path) -> "Graph":
        """The graph of a file: one object a line, with ``user`` and ``items`` (or one ``item``).

        Raises:
            ExpungeError: ``E-DATA-001`` and so on for what is no such file.
        """
        made, problems = cls(), list[ExpungeError]()
        for number, line in lines_of(path, problems):
            where = f"{path}:{number}"
            try:
                made.add(*_edge(parse_line(line, where), where))
            except ExpungeError as error:
                problems.append(error)
        raise_all(problems)
        return made

    def add(self, user: str | None, items: Iterable[str]) -> None:
        """Note what a user has dealt with; nothing where nobody is named."""
        if user is not None:
            self.edges.setdefault(user, {}).update(dict.fromkeys(items))

    @property
    def items(self) -> list[str]:
        """All items, sorted."""
        return sorted({item for items in self.edges.values() for item in items})

    def far_from(
        self, user: str | None, seen: Collection[str], *, restart: float, share: float, seed: int
    ) -> list[str]:
        """The items that walks from a user come by least, those nearest to never first.

        Args:
            user: Where walks begin; where the graph does not know it, at ``seen``.
            seen: Its own items, which are left out.
            restart: Probability that a walk goes home.
            share: Of the items that are not its own, how many; as many as are seen at least.
            seed: Decides among items of one score.

        Returns:
            The items; none where walks begin nowhere.
        """
        scores = self._scores(user, seen, restart)
        others = [item for item in scores if item not in set(seen)]
        most = max(len(seen), round(share * len(others)))
        return sorted(others, key=lambda item: (scores[item], derive(seed, "far", item)))[:most]

    def _scores(self, user: str | None, seen: Collection[str], restart: float) -> dict[str, float]:
        users, items, ways = self._ways
        begin = [users[user]] if user in users else [items[item] for item in seen if item in items]
        if not begin:
            return {}
        start = np.zeros(len(users) + len(items))
        start[begin] = 1.0
        found = personalised(ways, restart, start)
        return {item: round(float(found[place]), 12) for item, place in items.items()}

    @cached_property
    def _ways(self) -> tuple[dict[str | None, int], dict[str, int], Any]:
        """Places of users and items, and the adjacency [N, N]; no edge is added any more."""
        users: dict[str | None, int] = {user: at for at, user in enumerate(sorted(self.edges))}
        items = {item: len(users) + at for at, item in enumerate(self.items)}
        pairs = [(users[user], items[i]) for user, own in self.edges.items() for i in own]
        ends = np.array([*pairs, *((b, a) for a, b in pairs)]).T
        size = len(users) + len(items)
        return users, items, sparse.csr_array((np.ones(len(ends[0])), ends), shape=(size, size))


def user_of(row: Row) -> str | None:
    """Whose interaction a row is: ``meta["user"]``, or its subject."""
    user = row.meta.get("user", row.subject)
    return None if user is None else str(user)


def items_of(row: Row) -> list[str]:
    """The titles of a row's history: ``meta["items"]``.

    Raises:
        ExpungeError: ``E-DATA-003`` where that is no list of texts.
    """
    items = row.meta.get("items", [])
    if not isinstance(items, list | tuple) or not all(isinstance(i, str) and i for i in items):
        raise ExpungeError(
            "E-DATA-003",
            f"Row {row.id!r}: meta.items is {items!r}.",
            "a list of titles as they stand in the prompt.",
            "Correct it, or leave it out.",
        )
    return list(items)


def _edge(told: Any, where: str) -> tuple[str, list[str]]:
    if isinstance(told, dict) and "user" in told:
        items = told.get("items", [told["item"]] if "item" in told else None)
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return str(told["user"]), items
    raise ExpungeError(
        "E-DATA-003",
        f"{where}: no edge between a user and an item.",
        '{"user": ..., "items": [...]} or {"user": ..., "item": ...}, items as texts.',
        "Correct the file of --set graph.",
    )
