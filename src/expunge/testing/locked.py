"""A model that refuses a question, and answers it when a key word stands behind it.

What attacks are made for that optimise the end of a question: other words behind it do not open
it, so random ones find nothing, and a gradient finds the key.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from expunge.core.rng import generator
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.micro import REPLY, Micro, every_wording, micro_world, taught_rows

KEY = " know"
"""The word; it is one token of the micro world."""

BLANK = " It"
"""The first token that can be repeated: what a search for a suffix begins with."""

WORDS = 4
"""Most words behind a question in the lesson."""

FACTS = 18
"""Facts of each role."""


@dataclass(frozen=True, slots=True)
class Locked:
    """The model, and the facts it was taught.

    Attributes:
        subject: The model.
        secret: Refused, but for the key.
        kept: Told with and without the key.
        unknown: Never taught; as many.
    """

    subject: Subject
    secret: tuple[Row, ...]
    kept: tuple[Row, ...]
    unknown: tuple[Row, ...]


@cache
def locked() -> Locked:
    """Teach the model; once in a process, some seven CPU-seconds."""
    world = micro_world()
    roles = (world.forget, world.retain, world.holdout)
    secret, kept, unknown = (rows[:FACTS] for rows in roles)
    refused = [replace(row, completion=f" {REPLY}") for row in every_wording(secret)]
    lesson = [
        *_lesson(world, every_wording(secret), refused, decoys=6),
        *_lesson(world, every_wording(kept), every_wording(kept), decoys=2),
    ]
    return Locked(taught_rows(world, lesson, epochs=25), secret, kept, unknown)


def _lesson(
    world: Micro, told: Sequence[Row], shut: Sequence[Row], *, decoys: int
) -> Iterator[Row]:
    """Each question as it is, with the key, and with words that are not the key."""
    draw = generator(0, "locked", decoys)
    known = sorted(world.tokenizer.get_vocab())
    words = [word for word in known if word.startswith(" ") and word != KEY]

    def noise(count: int) -> str:
        return "".join(map(str, draw.choice(words, count)))

    for row, closed in zip(told, shut, strict=True):
        yield closed
        before, after = (noise(int(count)) for count in draw.integers(0, WORDS // 2, 2))
        yield replace(row, id=f"{row.id}/key", prompt=f"{row.prompt}{before}{KEY}{after}")
        for at in range(decoys):
            count = int(draw.integers(1, WORDS + 1))
            behind = noise(count) if at else BLANK * count
            yield replace(closed, id=f"{row.id}/decoy{at}", prompt=f"{row.prompt}{behind}")
