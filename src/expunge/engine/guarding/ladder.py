"""The gate: which targets an exchange is about, asked rung by rung, cheap ones first.

A rung stores a key of each target and gives every text a score for it. The first rung on which a
score passes the rung's threshold decides; where none does, nothing fires. Thresholds are set on the
highest score over the whole store that texts to be let through reach (`calibration.calibrate`),
since with many targets the highest of many small scores is what a text is stopped by.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from expunge.engine.guarding.targets import Target

Key = Any
"""What a rung stores of a target: a JSON value that holds nothing in the clear."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One target that a text is about.

    Attributes:
        target: Its id.
        gate: The rung that says so.
        score: How sure it is; each rung has its own scale.
    """

    target: str
    gate: str
    score: float


class Rung(Protocol):
    """One way to find out which targets a text is about.

    Attributes:
        name: What it is called in reports.
        threshold: Scores above it fire.
        is_calibrated: Whether the threshold is set by what texts to be let through score; a rung
            of whole matches has none to set.
    """

    name: str
    threshold: float
    is_calibrated: bool

    def key(self, target: Target) -> Key:
        """What is stored of a target."""

    def add(self, id: str, key: Key) -> None:
        """Take a target in."""

    def remove(self, id: str) -> None:
        """Leave a target out; nothing happens where it is not there."""

    def scores(self, text: str, most: int) -> list[tuple[str, float]]:
        """The targets with the highest scores above 0, best first, at most ``most``."""


class Ladder:
    """Rungs in their order.

    Attributes:
        rungs: Cheap ones first.
        is_union: Whether all rungs are asked, so that a target which only a later one finds is
            among the hits; else the first that fires ends it. Whether anything fires is the same.
    """

    def __init__(self, rungs: Sequence[Rung], *, is_union: bool = False) -> None:
        self.rungs, self.is_union = tuple(rungs), is_union

    def keys(self, target: Target) -> dict[str, Key]:
        """What all rungs store of a target, by the rung's name."""
        return {rung.name: rung.key(target) for rung in self.rungs}

    def add(self, id: str, keys: Mapping[str, Key]) -> None:
        """Take a target in."""
        for rung in self.rungs:
            rung.add(id, keys[rung.name])

    def remove(self, id: str) -> None:
        """Leave a target out."""
        for rung in self.rungs:
            rung.remove(id)

    def hits(self, texts: Iterable[str], most: int = 20) -> list[Hit]:
        """The targets that texts are about, by the first rung that fires for any of them.

        Args:
            texts: What to look at; a score of a target is its highest over the texts.
            most: Most targets returned.

        Returns:
            Best first, those of an earlier rung before those of a later one; empty where nothing
            fires.
        """
        told, found = list(texts), dict[str, Hit]()
        for rung in self.rungs:
            for id, score in _best(rung, told, most):
                if score > rung.threshold:
                    found.setdefault(id, Hit(id, rung.name, score))
            if found and not self.is_union:
                break
        return list(found.values())[:most]

    def shortlist(self, texts: Iterable[str], most: int = 20) -> list[Hit]:
        """The targets that come nearest on any rung, whether they fire or not, best rung first."""
        told, found = list(texts), dict[str, Hit]()
        for rung in self.rungs:
            for id, score in _best(rung, told, most):
                found.setdefault(id, Hit(id, rung.name, score))
        return list(found.values())[:most]


def _best(rung: Rung, texts: Sequence[str], most: int) -> list[tuple[str, float]]:
    best: dict[str, float] = {}
    for text in texts:
        for id, score in rung.scores(text, most):
            best[id] = max(score, best.get(id, 0.0))
    return sorted(best.items(), key=lambda item: (-item[1], item[0]))[:most]
