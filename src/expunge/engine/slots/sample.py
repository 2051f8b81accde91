"""Samplers: which rows of which role stand together in a step.

A draw is a pure function of (seed, step): resuming needs no sampler state, and every process of a
distributed run makes the same global draw and takes its share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from expunge.core.canonical import digest
from expunge.core.families import GradientParams
from expunge.core.rng import derive, generator
from expunge.engine.task import Task
from expunge.requests.rows import Row


@dataclass(frozen=True, slots=True)
class Draw:
    """The rows of one optimiser step.

    Attributes:
        step: Index of the step.
        rows: Role -> row indices into the task's rows of that role.
        epochs: For each forget entry, how often its row set had been passed before.
        wording: Role -> one random integer an entry, to choose among a row's wordings.
    """

    step: int
    rows: Mapping[str, Sequence[int]]
    epochs: Sequence[int]
    wording: Mapping[str, Sequence[int]]

    def share(self, rank: int, world: int) -> "Draw":
        """The part of one process: every ``world``-th entry of every role."""
        cut = slice(rank, None, world)
        return self._take(lambda entries: entries[cut])

    def chunk(self, index: int, count: int) -> "Draw":
        """Micro-batch ``index`` of ``count``; entries that stand together stay together."""

        def part(entries: Sequence[int]) -> Sequence[int]:
            size = -(-len(entries) // count)
            return entries[index * size : (index + 1) * size]

        return self._take(part)

    def _take(self, part: "Part") -> "Draw":
        return Draw(
            self.step,
            {role: part(entries) for role, entries in self.rows.items()},
            part(self.epochs),
            {role: part(entries) for role, entries in self.wording.items()},
        )


class Part(Protocol):
    """Takes some entries of a role."""

    def __call__(self, entries: Sequence[int], /) -> Sequence[int]:
        """Some of ``entries``, in order."""
        ...


class Sampler(Protocol):
    """Pairs the roles."""

    steps_per_epoch: int

    def draw(self, step: int) -> Draw:
        """The global draw of ``step``."""
        ...


@dataclass(frozen=True, slots=True)
class OneToOne:
    """Forget rows in a new order each epoch, each beside one retain row drawn uniformly.

    A forget set smaller than the step is passed once a step; retain rows then still fill the step.
    """

    forget: int
    others: Mapping[str, int]
    size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps that pass all forget rows once."""
        return -(-self.forget // self.size)

    def draw(self, step: int) -> Draw:
        """The global draw of ``step``."""
        count = min(self.size, self.forget)
        places = range(step * count, (step + 1) * count)
        epochs = [place // self.forget for place in places]
        orders = {
            epoch: generator(self.seed, "order", epoch).permutation(self.forget)
            for epoch in set(epochs)
        }
        rows: dict[str, list[int]] = {
            "forget": [
                int(orders[epoch][place % self.forget])
                for epoch, place in zip(epochs, places, strict=True)
            ]
        }
        for role, available in self.others.items():
            rng = generator(self.seed, role, step)
            rows[role] = [int(row) for row in rng.integers(available, size=self.size)]
        wording = {
            role: [
                int(w)
                for w in generator(self.seed, "wording", role, step).integers(2**31, size=len(r))
            ]
            for role, r in rows.items()
        }
        return Draw(step, rows, epochs, wording)


def one_to_one(task: Task, params: GradientParams) -> OneToOne:
    """The default sampler: ``batch_size * accumulation`` rows of each role a step."""
    others = {
        role: len(rows)
        for role, rows in task.roles.items()
        if role in ("retain", "neighbour") and rows
    }
    size = params.batch_size * params.accumulation
    return OneToOne(len(task.forget), others, size, task.seed)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Every forget row with every candidate of a view beside it, in a new order each epoch.

    Attributes:
        passes: Over the pairs, as if each were a row.
        view: The view whose candidates it names.
        count: Candidates of each row.
    """

    passes: OneToOne
    view: str
    count: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps that pass all pairs once."""
        return self.passes.steps_per_epoch

    def draw(self, step: int) -> Draw:
        """The global draw of ``step``."""
        drawn = self.passes.draw(step)
        pairs = [divmod(pair, self.count) for pair in drawn.rows["forget"]]
        named = {"forget": [row for row, _ in pairs], self.view: [one for _, one in pairs]}
        return replace(drawn, rows={**drawn.rows, **named})


def pairs(task: Task, params: GradientParams) -> Pairs:
    """For what compares each forget row with all its alternates: an epoch passes every pair."""
    count = task.paired["alternate"].count
    rows = one_to_one(task, params)
    return Pairs(replace(rows, forget=count * rows.forget), "alternate", count)


@dataclass(frozen=True, slots=True)
class KeyedPasses:
    """Whole passes over the retain rows, in an order that each row's content decides.

    In every pass the rows stand sorted by a hash of seed, pass and content, and a row's wording is
    drawn from such a hash as well: so a row that is not there shifts no other row past another.
    The last step of a pass may be smaller.

    Attributes:
        keys: Hash of the content of each retain row.
        size: Rows of a step.
        seed: Seed of the run.
        steps_per_epoch: Steps the plan counts as one epoch.
    """

    keys: Sequence[str]
    size: int
    seed: int
    steps_per_epoch: int

    def draw(self, step: int) -> Draw:
        """The global draw of ``step``."""
        in_pass = -(-len(self.keys) // self.size)
        passed, place = divmod(step, in_pass)
        rows = self._order(passed)[place * self.size : (place + 1) * self.size]
        wording = [derive(self.seed, "wording", passed, self.keys[row]) for row in rows]
        return Draw(step, {"retain": rows}, (), {"retain": wording})

    def _order(self, passed: int) -> list[int]:
        hashes = [derive(self.seed, "pass", passed, key) for key in self.keys]
        return sorted(range(len(self.keys)), key=hashes.__getitem__)


def over_retain(task: Task, params: GradientParams) -> KeyedPasses:
    """For what trains on retain rows alone: an epoch is one pass over them."""
    size = params.batch_size * params.accumulation
    keys = [content_key(row) for row in task.retain]
    return KeyedPasses(keys, size, task.seed, -(-len(keys) // size))


def content_key(row: Row) -> str:
    """A hash of everything a row trains on; where it stands and its id count for nothing."""
    turns = (row.training, *row.turns[1:])
    return digest([[_plain(turn.prompt), turn.completion] for turn in turns])


def _plain(prompt: str | Sequence[Mapping[str, str]]) -> str | list[dict[str, str]]:
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]


SHARED = {"one-to-one": one_to_one, "pairs": pairs, "over-retain": over_retain}
