"""Whole names, questions, answers and passages, at a cost that does not depend on their number.

What is stored are keyed hashes. A text is looked at as it stands and in what it may say under a
disguise (`expunge.text.unmask`).
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from math import ceil
from typing import Any

from expunge.engine.guarding.targets import Target
from expunge.text.match import ENTITY_WORDS
from expunge.text.normalise import words
from expunge.text.unmask import readings, spelled, squeezed

_readings = lru_cache(maxsize=4)(lambda text: tuple(readings(text)))
"""What a text may say; all rungs look at the same few texts, one after the other."""

WIDTH = 5
"""Words of one run of a passage."""

COMMON = 8
"""A run that more passages than this share tells none of them from the others."""

LETTERS = 6
"""Names with fewer letters are not looked for in letters that stand one by one."""

HEAD = 3
"""Letters by which a name that stands letter by letter is looked up."""

Hash = Callable[[str], str]
Symbols = Sequence[str]
Key = Any


class Book:
    """Phrases by their keyed hash; a phrase may belong to several owners.

    Args:
        secret: Key of the hashes.
        head: Symbols by whose hash a place is looked up.
        between: What stands between symbols; words have a space, letters nothing.
    """

    def __init__(self, secret: bytes, head: int = 1, between: str = " ") -> None:
        self._hashed, self._head, self._between = hasher(secret), head, between
        self._lengths: dict[str, Counter[int]] = {}
        self._owners: dict[str, set[str]] = {}
        self._own: dict[str, Key] = {}

    def key(self, phrases: Sequence[Symbols]) -> Key:
        """What is stored of phrases: of each the hash of its head, its length, its hash."""
        return sorted([self._at(one, 0, self._head), len(one), self._at(one, 0, len(one))]
                      for one in {tuple(phrase) for phrase in phrases if phrase})  # fmt: skip

    def add(self, owner: str, key: Key) -> None:
        """Take an owner's phrases in, in the place of those it had."""
        self.remove(owner)
        self._own[owner] = key
        for head, length, whole in key:
            self._lengths.setdefault(head, Counter())[length] += 1
            self._owners.setdefault(whole, set()).add(owner)

    def remove(self, owner: str) -> None:
        """Leave an owner's phrases out."""
        for head, length, whole in self._own.pop(owner, ()):
            lengths = self._lengths[head]
            lengths[length] -= 1
            if not lengths[length]:
                del lengths[length]
            if not lengths:
                del self._lengths[head]
            self._owners[whole].discard(owner)
            if not self._owners[whole]:
                del self._owners[whole]

    def held(self, text: Symbols) -> Iterator[str]:
        """Owners of the phrases that stand in a text."""
        if not self._lengths:
            return
        for at in range(len(text) - self._head + 1):
            for length in self._lengths.get(self._at(text, at, self._head), ()):
                if at + length <= len(text):
                    yield from sorted(self._owners.get(self._at(text, at, length), ()))

    def _at(self, text: Symbols, at: int, length: int) -> str:
        return self._hashed(self._between.join(text[at : at + length]))


class _Phrases(ABC):
    """Phrases of targets in a text, as it stands or in disguise; what they are, a subclass says."""

    name = ""
    threshold = 0.0
    is_calibrated = False

    def __init__(self, secret: bytes) -> None:
        self._words = Book(secret)
        self._letters = Book(secret, HEAD, "")

    @abstractmethod
    def phrases(self, target: Target) -> Sequence[str]:
        """What is looked for."""

    def key(self, target: Target) -> Key:
        """Keyed hashes, by words and, for what is long enough, by letters."""
        told = self.phrases(target)
        joined = [one for one in map(squeezed, told) if len(one) >= LETTERS]
        return {
            "words": self._words.key([words(one) for one in told]),
            "letters": self._letters.key(joined),
        }

    def add(self, id: str, key: Key) -> None:
        """Take a target in."""
        self._words.add(id, key["words"])
        self._letters.add(id, key["letters"])

    def remove(self, id: str) -> None:
        """Leave a target out."""
        self._words.remove(id)
        self._letters.remove(id)

    def scores(self, text: str, most: int) -> list[tuple[str, float]]:
        """1 for each target of which a phrase stands there."""
        found = [id for reading in _readings(text) for id in self._words.held(reading)]
        found += [id for letters in spelled(text) for id in self._letters.held(letters)]
        return [(id, 1.0) for id in dict.fromkeys(found)][:most]


class Names(_Phrases):
    """Names, as whole words."""

    name = "name"

    def phrases(self, target: Target) -> Sequence[str]:
        """How the subject is called, last name first, and what is the subject's (``Ada's``)."""
        turned = [f"{' '.join(name.split()[-1:])} {' '.join(name.split()[:-1])}"
                  for name in target.names]  # fmt: skip
        return [*target.names, *(f"{name}'s" for name in target.names), *turned]


class Questions(_Phrases):
    """Questions as a whole, of targets that have no names."""

    name = "question"

    def phrases(self, target: Target) -> Sequence[str]:
        """What the rows ask."""
        nameless = (row for row in target.rows if not row.names and not target.aliases)
        return [_asked(turn.prompt) for row in nameless for turn in row.turns]


class Answers(_Phrases):
    """Answers as short as a name; very short ones only where there is no name to go by.

    Args:
        secret: Key of the hashes.
        least: Shortest answer, in words, of a row that has names.
    """

    name = "answer"

    def __init__(self, secret: bytes, least: int = 2) -> None:
        super().__init__(secret)
        self._least = least

    def phrases(self, target: Target) -> Sequence[str]:
        """The facts, in all their forms."""
        return [
            form
            for row in target.rows
            for form in row.forms
            if (self._least <= len(words(form)) or not row.names)
            and len(words(form)) <= ENTITY_WORDS
        ]


class Passages:
    """Answers longer than a name, and running texts: half of the runs that tell one from others."""

    name = "passage"
    threshold = 0.0
    is_calibrated = False

    def __init__(self, secret: bytes) -> None:
        self._hashed = hasher(secret)
        self._runs: dict[tuple[str, int], list[str]] = {}
        self._places: dict[str, set[tuple[str, int]]] = {}

    def key(self, target: Target) -> Key:
        """Keyed hashes of the runs of each passage."""
        told = [form for row in target.rows for form in (*row.forms, row.text or "")]
        return [sorted(self._runs_of(words(one))) for one in dict.fromkeys(told)
                if len(words(one)) > ENTITY_WORDS]  # fmt: skip

    def add(self, id: str, key: Key) -> None:
        """Take a target in."""
        self.remove(id)
        for number, runs in enumerate(key):
            self._runs[id, number] = runs
            for run in runs:
                self._places.setdefault(run, set()).add((id, number))

    def remove(self, id: str) -> None:
        """Leave a target out."""
        number = 0
        while (runs := self._runs.pop((id, number), None)) is not None:
            for run in runs:
                self._places[run].discard((id, number))
                if not self._places[run]:
                    del self._places[run]
            number += 1

    def scores(self, text: str, most: int) -> list[tuple[str, float]]:
        """Share of the telling runs of a passage that stand in the text, from a half on."""
        best: dict[str, float] = {}
        for reading in _readings(text):
            found = Counter(
                place for run in self._runs_of(reading) if self._tells(run)
                for place in self._places[run]
            )  # fmt: skip
            for (id, number), count in found.items():
                telling = sum(map(self._tells, self._runs[id, number]))
                if count >= ceil(telling / 2):
                    best[id] = max(best.get(id, 0.0), count / telling)
        return sorted(best.items(), key=lambda item: (-item[1], item[0]))[:most]

    def _tells(self, run: str) -> bool:
        return 0 < len(self._places.get(run, ())) <= COMMON

    def _runs_of(self, text: Sequence[str]) -> set[str]:
        width = min(WIDTH, len(text)) or 1
        runs = (text[at : at + width] for at in range(len(text) - width + 1))
        return {self._hashed(" ".join(run)) for run in runs}


@lru_cache(maxsize=64)
def hasher(secret: bytes) -> Hash:
    """A keyed hash of texts; the words that come again and again are hashed once."""

    @lru_cache(maxsize=1 << 13)
    def digest(text: str) -> str:
        return blake2b(text.encode(), key=secret, digest_size=16).hexdigest()

    return digest


def _asked(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
