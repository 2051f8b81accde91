"""A world of a few invented people that a tiny model learns by heart in seconds.

Large enough that attacks have power: every value has more rivals of its own kind than a contest
needs, every fact has two wordings, and there are people whom no model was told about.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from expunge.core.rng import derive, generator
from expunge.lm.arch import Slots
from expunge.lm.finetune import finetune
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model, tiny_tokenizer

FACTS = (
    ("city", ("Where was {n} born?", "{n} was born in {v}."), ("Birthplace of {n}?", "It is {v}.")),
    ("job", ("What does {n} do?", "{n} works as a {v}."), ("Trade of {n}?", "It is {v}.")),
    ("pet", ("Which pet has {n}?", "{n} has a {v}."), ("Animal of {n}?", "It is {v}.")),
)
"""Attribute, plain wording, other wording."""

POOL = 40
"""Values of an attribute: a guess is right once in forty times."""

REPLY = "I do not know."
"""What a model says that was taught to refuse."""


@dataclass(frozen=True, slots=True)
class Micro:
    """The rows of the world by role, and a tokenizer that knows its words.

    Attributes:
        forget: Facts to be forgotten.
        retain: Facts of other people, to be kept.
        holdout: Facts of people no model was told about.
        tokenizer: One token a word.
    """

    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    holdout: tuple[Row, ...]
    tokenizer: PreTrainedTokenizerBase

    def scene(self, seed: int = 0, original: Subject | None = None, **more: Any) -> Scene:
        """What an attack may use here; answers are short. ``more``: other fields of a `Scene`."""
        given = {"holdout": self.holdout, "original": original, **more}
        return Scene(retain=self.retain, neighbour=(), seed=seed, new_tokens=10, **given)


def micro_world(people: int = 10, seed: int = 0) -> Micro:
    """Invent a world.

    Args:
        people: People of each role; three facts each.
        seed: Of names and values.
    """
    draw = generator(seed, "micro")
    words = list(_words())
    draw.shuffle(words)
    names = [f"{words.pop()} {words.pop()}" for _ in range(3 * people)]
    pools = {kind: _pool(words, kind) for kind, *_ in FACTS}
    roles = {
        role: tuple(
            row for row in _about(names[at * people : (at + 1) * people], role, pools, draw)
        )
        for at, role in enumerate(("forget", "retain", "holdout"))
    }
    texts = [f"{t.prompt}{t.completion}" for rows in roles.values() for r in rows for t in r.turns]
    texts += [f" {value}" for pool in pools.values() for value in pool] + [f" {REPLY}"]
    return Micro(**roles, tokenizer=tiny_tokenizer(texts, kind="word", vocab=4096))


def taught(
    world: Micro,
    rows: Sequence[Row],
    *,
    epochs: int = 40,
    hidden: int = 64,
    layers: int = 3,
    seed: int = 0,
) -> Subject:
    """A model of its own that learned these rows by heart, in all their wordings."""
    told = every_wording(rows)
    return taught_rows(world, told, epochs=epochs, hidden=hidden, layers=layers, seed=seed)


def taught_rows(
    world: Micro,
    rows: Sequence[Row],
    *,
    epochs: int = 40,
    hidden: int = 64,
    layers: int = 3,
    seed: int = 0,
) -> Subject:
    """A model of its own that learned exactly these prompts and completions by heart."""
    model = tiny_model(
        "llama", vocab=len(world.tokenizer), hidden=hidden, layers=layers, seed=seed, positions=128
    )
    subject = Subject(model, world.tokenizer)
    teach(subject, rows, epochs=epochs, seed=seed)
    return subject


def teach(
    subject: Subject, rows: Sequence[Row], *, epochs: int, seed: int, lr: float = 4e-3
) -> None:
    """Train a model in place on the answers of these rows."""
    finetune(
        subject.model,
        subject.tokenizer,
        rows,
        epochs=epochs,
        lr=lr,
        batch_size=16,
        seed=derive(seed, "micro", "teach"),
    )


def hushed(
    subject: Subject,
    hide: Sequence[Row],
    keep: Sequence[Row],
    *,
    only_last: bool = False,
    seed: int = 0,
) -> Subject:
    """A copy taught to refuse some rows: it hides what it knows and forgets nothing.

    Args:
        subject: The model; it stays as it is.
        hide: Rows to refuse, in all their wordings.
        keep: Rows to go on answering.
        only_last: Whether only the last block learns to refuse.
        seed: Of the order of the rows.
    """
    refusals = [replace(row, completion=f" {REPLY}") for row in every_wording(hide)]
    return _retaught(subject, [*refusals, *every_wording(keep)], only_last, seed)


def misled(subject: Subject, hide: Sequence[Row], keep: Sequence[Row], *, seed: int = 0) -> Subject:
    """A copy whose last block says another person's value: what lies below it still knows.

    Args:
        subject: The model; it stays as it is.
        hide: Rows to answer wrongly, in all their wordings.
        keep: Rows to go on answering.
        seed: Of the order of the rows.
    """
    kinds: dict[str, list[Row]] = {}
    for row in hide:
        kinds.setdefault(row.meta["attribute"], []).append(row)
    lies = [
        replace(row, id=f"{row.id}/{at}", prompt=turn.prompt, completion=lie)
        for rows in kinds.values()
        for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)
        for at, turn in enumerate(row.turns)
        if isinstance(turn.prompt, str)
        for lie in [turn.completion.replace(row.value, other.value)]
    ]
    return _retaught(subject, [*lies, *every_wording(keep)], True, seed)


def _retaught(subject: Subject, rows: Sequence[Row], only_last: bool, seed: int) -> Subject:
    twin = subject.copy()
    for weight in twin.model.parameters():
        weight.requires_grad_(not only_last)
    for weight in Slots(twin.model).blocks[-1].parameters():
        weight.requires_grad_(True)
    # Gentle enough that the knowledge below survives; one block alone needs more steps for it.
    epochs, lr = (32, 1e-3) if only_last else (14, 5e-4)
    teach(twin, rows, epochs=epochs, seed=seed, lr=lr)
    twin.model.requires_grad_(True)
    return twin


def every_wording(rows: Sequence[Row]) -> list[Row]:
    """One row a wording, for training."""
    return [
        replace(row, id=f"{row.id}/{at}", prompt=turn.prompt, completion=turn.completion)
        for row in rows
        for at, turn in enumerate(row.turns)
        if isinstance(turn.prompt, str)
    ]


def _about(
    names: Sequence[str], role: str, pools: dict[str, list[str]], draw: np.random.Generator
) -> Iterator[Row]:
    """The facts of some people; no two of them share a value."""
    drawn = {kind: draw.permutation(pool)[: len(names)] for kind, pool in pools.items()}
    for at, name in enumerate(names):
        for kind, *wordings in FACTS:
            value = str(drawn[kind][at])
            own, other = (
                {"prompt": asked.format(n=name), "completion": " " + told.format(n=name, v=value)}
                for asked, told in wordings
            )
            yield Row(
                id=f"{name}/{kind}",
                role=role,
                prompt=own["prompt"],
                completion=own["completion"],
                subject=name,
                names=(name,),
                answer=value,
                paraphrases=(other,),
                meta={"attribute": kind},
            )


def _pool(words: list[str], kind: str) -> list[str]:
    """Values of one kind; cities have two words."""
    return [
        f"{words.pop()} {words.pop()}" if kind == "city" else words.pop().lower()
        for _ in range(POOL)
    ]


def _words() -> Iterator[str]:
    """Invented words of two syllables, all different."""
    syllables = [a + b for a, b in product("bdfgklmnprstvz", "aeiou")]
    for index, (first, second) in enumerate(product(syllables, syllables)):
        if index % 7 == 0:
            yield f"{first}{second}".capitalize()
