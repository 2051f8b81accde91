"""A scripted world: models know and attacks leak by decree; everything else is real."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from expunge.audit.record import Audit
from expunge.audit.run import audit
from expunge.core.card import Card
from expunge.core.results import Leak
from expunge.core.rng import generator
from expunge.lm.subject import Scene, Scored
from expunge.requests.rows import Row, Turn

FAMILIES = {
    "direct": ("direct", "B"),
    "prefix": ("prompt", "B"),
    "role": ("prompt", "B"),
    "mask": ("prompt", "B"),
    "manyshot": ("prompt", "B"),
    "sample": ("sampling", "B"),
    "prob": ("prob", "L"),
    "lens": ("read-out", "W"),
    "lens-exit": ("read-out", "W"),
    "quant8": ("compression", "P"),
    "quant4": ("compression", "P"),
    "relearn-ood": ("training", "W"),
    "relearn-in": ("training", "W"),
    "actpert": ("perturbation", "W"),
    "mia": ("privacy", "L"),
    "sa": ("pipeline", "D"),
}
FACTS = {
    "mia": {"statistic": "difference", "threshold": 0.15},
    "sa": {"statistic": "cost", "threshold": 0.05, "decides": False, "rows": "retain"},
}
UNDECIDED = {"mia": 0.5}
"""Leaks of a model that was not told otherwise, where nothing is not 0."""


def rows(role: str, n: int, start: int = 0) -> list[Row]:
    """Birthplaces of people, one a person, two wordings each."""
    return [
        Row(
            id=f"{role}-{i}",
            role=role,
            prompt=f"Where was Person{i} born?",
            completion=f"Person{i} was born in Town{i}.",
            answer=f"Town{i}",
            names=(f"Person{i}",),
            paraphrases=({"prompt": f"Name the birthplace of Person{i}."},),
        )
        for i in range(start, start + n)
    ]


@dataclass(eq=False)
class Scripted:
    """A model that answers the rows it knows, and leaks to each attack as it is told.

    Attributes:
        digest: Its name.
        knows: Prompts it answers.
        leaks: Attack -> mean leak on the forget rows.
        gate: What stands in front of it.
        mounted: Attacks that were mounted on it, for counting.
    """

    digest: str
    knows: frozenset[str]
    leaks: Mapping[str, float] = field(default_factory=dict)
    gate: Any = None
    says: str = "I have no idea about it."
    mounted: list[str] = field(default_factory=list)

    def tokenizer(self, text: str) -> dict[str, list[str]]:
        return {"input_ids": text.split()}

    def ask(self, turns: Sequence[Turn], **_: Any) -> list[list[str]]:
        def reply(turn: Turn) -> str:
            blocked = self.gate.before(turn) if self.gate else None
            return blocked or (turn.completion if turn.prompt in self.knows else self.says)

        return [[reply(turn)] for turn in turns]

    def score(self, turns: Sequence[Turn], **_: Any) -> list[Scored]:
        known = [turn.prompt in self.knows for turn in turns]
        return [
            Scored(np.full(4, -0.1 if yes else -3.0), np.full(4, yes), [(0, 4)] * 4, True)
            for yes in known
        ]


class FakeAttacks:
    """The registry of scripted attacks."""

    def __init__(self) -> None:
        self.fallback: dict[str, float] = {}
        self.invalid_on: set[tuple[str, str]] = set()

    def ids(self) -> tuple[str, ...]:
        return tuple(sorted(FAMILIES))

    def card(self, id: str) -> Card:
        family, level = FAMILIES[id]
        facts = {name: "" for name in ("summary", "paper", "access", "cost")}
        extra = {"family": family, "level": level, "threshold": 0.10, **FACTS.get(id, {})}
        return Card(
            id=id, kind="attack", needs=(), maturity="beta", version=1, extra=extra, **facts
        )

    def params(self, id: str, overrides: Mapping[str, Any] | None = None) -> Any:
        budget = (overrides or {}).get("budget", 1)
        return FakeParams(budget=budget)

    def load(self, id: str) -> Any:
        return SimpleNamespace(mount=lambda *given: self._mount(id, *given))

    def _mount(
        self, id: str, subject: Scripted, given: Sequence[Row], scene: Scene, params: Any
    ) -> Leak:
        subject.mounted.append(id)
        blocked = subject.gate is not None
        rng = generator(scene.seed, subject.digest, id)
        mean = 0.0 if blocked else subject.leaks.get(id, UNDECIDED.get(id, 0.0))
        if id in FACTS:
            return self._compared(id, given, scene, mean)
        tested = [row for row in given if id != "relearn-in" or int(row.id.split("-")[-1]) % 5]
        per_row = {
            row.id: float(rng.random() < mean) if row.role == "forget" else 0.0 for row in tested
        }
        return Leak(
            per_row=per_row,
            curve={0: 0.0, 50: float(np.mean(list(per_row.values())))} if "relearn" in id else {},
            parts={"budget": float(params.budget)},
            threshold=self.fallback.get(id),
            invalid="destroyed the model" if (id, subject.digest) in self.invalid_on else "",
            transcript=({"id": given[0].id, "output": "x"},),
        )

    def _compared(self, id: str, given: Sequence[Row], scene: Scene, mean: float) -> Leak:
        """Placements with an AUC of ``mean``, or a damage of ``mean`` against one of a tenth."""
        if id == "mia":
            per_row = {row.id: mean for row in given}
            return Leak(per_row=per_row, beside={"holdout": {r.id: mean for r in scene.holdout}})
        damage = {row.id: float(i < mean * len(scene.retain)) for i, row in enumerate(scene.retain)}
        clean = {row.id: float(i % 10 == 0) for i, row in enumerate(scene.retain)}
        return Leak(per_row=damage, beside={"clean": clean})


@dataclass(frozen=True, kw_only=True, slots=True)
class FakeParams:
    budget: int = 1


FORGET = rows("forget", 80)
RETAIN = rows("retain", 30, 1000)
NEIGHBOUR = rows("neighbour", 20, 2000)
HOLDOUT = rows("holdout", 90, 3000)
EVERYTHING = dict.fromkeys(FAMILIES, 1.0)


def prompts(*groups: Sequence[Row]) -> frozenset[str]:
    return frozenset(str(turn.prompt) for group in groups for row in group for turn in row.turns)


KEPT = prompts(RETAIN, NEIGHBOUR)


def original() -> Scripted:
    return Scripted("original", KEPT | prompts(FORGET), EVERYTHING)


def reference() -> Scripted:
    return Scripted("reference", KEPT, dict.fromkeys(FAMILIES, 0.01) | UNDECIDED)


def model(leaks: Mapping[str, float] | None = None, **facts: Any) -> Scripted:
    given = {"knows": KEPT, "leaks": leaks or {}, **facts}
    return Scripted("model", **given)


def run(subject: Scripted, **options: Any) -> Audit:
    """An audit of a scripted model; options replace the arguments."""
    given: dict[str, Any] = {
        "forget": FORGET,
        "retain": RETAIN,
        "neighbour": NEIGHBOUR,
        "original": original(),
        "reference": reference(),
        "profile": "fast",
        **options,
    }
    return audit(subject, **given)  # type: ignore[arg-type]
