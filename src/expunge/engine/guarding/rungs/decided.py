"""The nearest targets of other rungs, put before a model that answers typed questions.

Definition (S the at most 20 targets nearest on other rungs that come at least half as near as it
takes to fire there):
    choose   one question: which of S, or none, the text asks about
             score(t) = P(t) / max_S P * (1 - P(none))
    yes      one question for each of S
             score(t) = P(yes)
    Nothing is asked where S is empty, which is so for most texts.

The rung can only add to what other rungs find: nothing that a text says to the model keeps the
others from firing. An answer that is not made of probabilities is an error, and errors close.

What is stored of a target is a line that tells the model what it is, sealed where it is written
and in the clear only in memory.

Reference: none; typed decisions on a shortlist.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Literal

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.ladder import Rung
from expunge.engine.guarding.targets import Target

SHORTLIST = 20
"""Targets put before the model; a question has at most 25 answers."""

NEAR = 0.5
"""Share of another rung's threshold from which on a target is worth a question."""

LABEL, QUESTIONS = 240, 3
"""Most characters that tell the model what a target is, and most questions among them."""

WHICH = "Which of these does the text ask about, or come close to, in whatever words?"
WHETHER = "Does the text ask about this, or come close to it, in whatever words: "
NONE = "none of these"


class Decided:
    """The rung.

    Args:
        decider: Answers the questions.
        nearest: The rungs that make the shortlist; they are filled by whoever fills this one.
        ask: One question for all (``choose``), or one for each (``yes``).
    """

    name = "decided"
    threshold = 0.7
    least = 0.5
    is_calibrated = True

    def __init__(
        self, decider: Decider, nearest: Sequence[Rung], ask: Literal["choose", "yes"] = "choose"
    ) -> None:
        self._decider, self._nearest, self._ask = decider, tuple(nearest), ask
        self._labels: dict[str, str] = {}

    def key(self, target: Target) -> dict[str, Any]:
        """The line for the model, to be sealed."""
        told = "; ".join((*target.names, *target.questions[:QUESTIONS]))
        return {"sealed": " ".join(told.split())[:LABEL]}

    def add(self, id: str, key: Mapping[str, Any]) -> None:
        """Take a target in."""
        self._labels[id] = str(key["sealed"])

    def remove(self, id: str) -> None:
        """Leave a target out."""
        self._labels.pop(id, None)

    def scores(self, text: str, most: int) -> list[tuple[str, float]]:
        """What the model says of the shortlist."""
        near = self._shortlist(text)
        if not near:
            return []
        found = self._chosen(text, near) if self._ask == "choose" else self._agreed(text, near)
        above = ((id, score) for id, score in found.items() if score > 0)
        return sorted(above, key=lambda item: (-item[1], item[0]))[:most]

    def _shortlist(self, text: str) -> list[str]:
        """The nearest of every rung in turn."""
        columns = [
            [id for id, score in rung.scores(text, SHORTLIST) if score > NEAR * rung.threshold]
            for rung in self._nearest
        ]
        turns = (id for turn in zip_longest(*columns) for id in turn if id in self._labels)
        return list(dict.fromkeys(turns))[:SHORTLIST]

    def _chosen(self, text: str, near: Sequence[str]) -> dict[str, float]:
        labels = list(dict.fromkeys(self._labels[id] for id in near))
        told = self._decider.choose(text, WHICH, [*labels, NONE])
        *each, none = _checked(told, len(labels) + 1)
        best = max(each)
        if best <= 0:
            return {}
        scores = {label: p / best * (1 - none) for label, p in zip(labels, each, strict=True)}
        return {id: scores[self._labels[id]] for id in near}

    def _agreed(self, text: str, near: Sequence[str]) -> dict[str, float]:
        told = [self._decider.yes(text, WHETHER + self._labels[id]) for id in near]
        return dict(zip(near, _checked(told, len(near)), strict=True))


def _checked(told: Sequence[float], count: int) -> list[float]:
    """Probabilities, as many as were asked for."""
    values = [float(one) for one in told]
    if len(values) != count or not all(math.isfinite(p) and 0 <= p <= 1 for p in values):
        raise ExpungeError(
            "E-SERVE-001",
            "A model for typed decisions gave something else than probabilities.",
            f"{count} numbers from 0 to 1.",
            "Look at the model behind --decider.",
        )
    return values
