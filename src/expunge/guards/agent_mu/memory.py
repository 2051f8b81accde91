"""An agent's memory: what is about a target leaves it, with all made of that, and stays out.

Definition (M the memory, F what the gate finds, D(i) the items that i was derived from):
    deleted = the smallest set with  F(content) => deleted,  D(i) meets deleted => i deleted
    stone   = (id, keyed hash of the content's words, targets) of each deleted item
    put(i)  is refused when F(content), when a stone has its id or its hash, or when a stone has
            the id of one of D(i)

A summary is deleted even where no name is left in it: it was made of what had to go. It can be made
again of the sources that are left. A stone holds nothing back once all its targets are revoked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from expunge.engine.guarding.desk import Desk
from expunge.engine.guarding.rungs.exact import Passages, hasher
from expunge.text.normalise import words


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that an agent remembers.

    Attributes:
        id: Its name in the memory.
        content: What is remembered.
        sources: Ids of the items that it was derived from, for summaries and the like.
    """

    id: str
    content: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is left of a deleted item: enough to know it again, nothing to read.

    Attributes:
        item: Its id.
        mark: Keyed hash of the words of its content.
        targets: The targets it was deleted for.
    """

    item: str
    mark: str
    targets: tuple[str, ...]


class Memory(Protocol):
    """The connector: what a memory of an agent must be able to do."""

    def list(self) -> Sequence[Item]:
        """All that is remembered."""

    def put(self, item: Item) -> bool:
        """Remember something, in the place of what had its id; False where that is refused."""

    def delete(self, id: str) -> None:
        """Remember something no longer; whatever holds copies of it loses them too."""

    def tombstone(self, stone: Tombstone) -> None:
        """Keep a tombstone, also over restarts."""

    def tombstones(self) -> Sequence[Tombstone]:
        """All tombstones."""


@dataclass(frozen=True, slots=True)
class Purge:
    """What a memory lost.

    Attributes:
        named: Ids of the items that were about a target themselves.
        derived: Ids of the items that were made of such items.
        again: Derived item -> its sources that are left, to make it of anew.
    """

    named: tuple[str, ...]
    derived: tuple[str, ...]
    again: "dict[str, tuple[str, ...]]"


class Shelf:
    """A memory in this process."""

    def __init__(self, items: Sequence[Item] = ()) -> None:
        self._items = {item.id: item for item in items}
        self._stones: dict[str, Tombstone] = {}

    def list(self) -> Sequence[Item]:
        """All that is remembered."""
        return tuple(self._items.values())

    def put(self, item: Item) -> bool:
        """Remember something."""
        self._items[item.id] = item
        return True

    def delete(self, id: str) -> None:
        """Remember something no longer."""
        self._items.pop(id, None)

    def tombstone(self, stone: Tombstone) -> None:
        """Keep a tombstone."""
        self._stones[stone.item] = stone

    def tombstones(self) -> Sequence[Tombstone]:
        """All tombstones."""
        return tuple(self._stones.values())


class Filtered:
    """A memory behind the gate of a guard: what was forgotten does not come back into it.

    Args:
        memory: The memory.
        desk: The guard's.
    """

    def __init__(self, memory: Memory, desk: Desk) -> None:
        self._memory, self._desk = memory, desk

    def list(self) -> Sequence[Item]:
        """All that is remembered and about no target, whoever put it there."""
        return tuple(item for item in self._memory.list() if not _about(item.content, self._desk))

    def put(self, item: Item) -> bool:
        """Remember something, unless it is about a target, was deleted, or comes of what was."""
        stones = _standing(self._memory, self._desk)
        ids, marks = {one.item for one in stones}, {one.mark for one in stones}
        is_back = item.id in ids or _mark(item.content, self._desk) in marks
        if is_back or ids & set(item.sources) or _about(item.content, self._desk):
            return False
        return self._memory.put(item)

    def delete(self, id: str) -> None:
        """Remember something no longer."""
        self._memory.delete(id)

    def tombstone(self, stone: Tombstone) -> None:
        """Keep a tombstone."""
        self._memory.tombstone(stone)

    def tombstones(self) -> Sequence[Tombstone]:
        """All tombstones."""
        return self._memory.tombstones()


def purge(memory: Memory, desk: Desk) -> Purge:
    """Delete what is about a target, and what was derived from it.

    The tombstones are set first, so that a purge that broke off is only to be repeated.

    Args:
        memory: The memory, past any filter.
        desk: Of the guard, with its targets.
    """
    held = {item.id: item for item in memory.list()}
    named = {id: found for id, item in held.items() if (found := _about(item.content, desk))}
    owners = _with_derived(held, named, _standing(memory, desk))
    for id, targets in owners.items():
        mark = _mark(held[id].content, desk)
        memory.tombstone(Tombstone(id, mark, tuple(sorted(targets))))
    for id in owners:
        memory.delete(id)
    derived = tuple(id for id in owners if id not in named)
    left = set(held) - set(owners)
    again = {id: tuple(one for one in held[id].sources if one in left) for id in derived}
    return Purge(tuple(named), derived, again)


def _with_derived(
    held: Mapping[str, Item], named: Mapping[str, set[str]], stones: Sequence[Tombstone]
) -> dict[str, set[str]]:
    """Item -> the targets for which it has to go, by its own content or by what it was made of."""
    gone = {one.item: set(one.targets) for one in stones}
    for id, targets in named.items():
        gone[id] = gone.get(id, set()) | targets
    is_growing = True
    while is_growing:
        is_growing = False
        for id, item in held.items():
            inherited = {one for source in item.sources for one in gone.get(source, ())}
            if not inherited <= gone.get(id, set()):
                gone[id] = gone.get(id, set()) | inherited
                is_growing = True
    return {id: gone[id] for id in held if id in gone}


def _standing(memory: Memory, desk: Desk) -> list[Tombstone]:
    """The tombstones of targets that were not revoked."""
    return [one for one in memory.tombstones() if not desk.entries.keys().isdisjoint(one.targets)]


def _about(text: str, desk: Desk) -> set[str]:
    """The targets a text is about, by their names, their questions or their passages."""
    found = {hit.target for hit in desk.ladder.hits([text], most=len(desk.entries))}
    passages = (rung for rung in desk.drafts.rungs if rung.name == Passages.name)
    return found | {id for rung in passages for id, _ in rung.scores(text, len(desk.entries))}


def _mark(text: str, desk: Desk) -> str:
    return hasher(desk.means.secret)("\0".join(words(text)))
