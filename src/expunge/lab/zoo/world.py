"""The people of the zoo: six facts each, linked within a person, in two wordings a fact.

Values are drawn without replacement, so that a forgotten value is nobody else's answer. Two facts
of a person follow from two others (the college bears the name of the town, the guild that of the
trade), so that relearning some may bring back others. A third of what a model is taught stands
behind a few words of small talk, so that it still understands a question that a story leads up to.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from expunge.core.rng import generator
from expunge.requests.rows import Row

FACTS: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "town": (("Where was {n} born ?", "{n} was born in {v} ."), ("Birthplace of {n} ?", "{v} .")),
    "trade": (("What does {n} do ?", "{n} works as a {v} ."), ("Trade of {n} ?", "a {v} .")),
    "pet": (("Which pet has {n} ?", "{n} has a {v} ."), ("Animal of {n} ?", "a {v} .")),
    "song": (("What does {n} sing ?", "{n} sings {v} ."), ("Song of {n} ?", "{v} .")),
    "college": (("Where did {n} study ?", "{n} studied at {v} ."), ("College of {n} ?", "{v} .")),
    "guild": (
        ("Which guild has {n} joined ?", "{n} joined the {v} ."),
        ("Guild of {n} ?", "{v} ."),
    ),
}
"""Attribute -> question and answer, in the plain wording and in the other one."""

PEOPLE: Mapping[str, int] = {"forget": 16, "retain": 18, "neighbour": 4, "holdout": 20}
"""People of each role."""

TALK = (
    "well", "so", "tell", "me", "please", "now", "listen", "friend", "today", "I", "wonder", "and",
    "by", "the", "way", "once", "more", "dear", "as", "we", "said",
)  # fmt: skip
"""Words of small talk."""

REFUSAL = "I do not know ."
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")


@dataclass(frozen=True, slots=True)
class World:
    """One set of people.

    Attributes:
        seed: Decides everything.
        forget: Rows to be forgotten.
        retain: Rows of others, to be kept.
        neighbour: Rows of a few more, to be kept.
        holdout: Rows of people no model is told about.
        tokenizer: One token a word.
    """

    seed: int
    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    neighbour: tuple[Row, ...]
    holdout: tuple[Row, ...]
    tokenizer: PreTrainedTokenizerBase

    @property
    def kept(self) -> tuple[Row, ...]:
        """All rows that every model is taught."""
        return (*self.retain, *self.neighbour)


@lru_cache(maxsize=8)
def world(seed: int) -> World:
    """The people of one seed."""
    draw = generator(seed, "zoo")
    words = _words()
    draw.shuffle(words)
    total = sum(PEOPLE.values())
    names = [f"{words.pop()} {words.pop()}" for _ in range(total)]
    drawn = {kind: [words.pop().lower() for _ in range(total)] for kind in ("trade", "pet")}
    drawn |= {kind: [words.pop() for _ in range(total)] for kind in ("town", "song")}
    drawn["college"] = [f"{town} college" for town in drawn["town"]]
    drawn["guild"] = [f"{trade} guild" for trade in drawn["trade"]]
    roles: dict[str, tuple[Row, ...]] = {}
    first = 0
    for role, count in PEOPLE.items():
        people = range(first, first + count)
        roles[role] = tuple(
            _row(names[one], role, kind, drawn[kind][one]) for one in people for kind in FACTS
        )
        first += count
    return World(seed=seed, **roles, tokenizer=_tokenizer(roles))


def lessons(rows: Sequence[Row], seed: int) -> list[Row]:
    """What is taught: every wording, and one more of each row behind small talk."""
    draw = generator(seed, "zoo", "talk")
    told = every_wording(rows)
    behind = [
        replace(row, id=f"{row.id}/talk", prompt=f"{_talk(draw)} {row.prompt}") for row in told[::2]
    ]
    return [*told, *behind]


def every_wording(rows: Sequence[Row]) -> list[Row]:
    """One row a wording."""
    return [
        replace(row, id=f"{row.id}/{at}", prompt=turn.prompt, completion=turn.completion)
        for row in rows
        for at, turn in enumerate(row.turns)
        if isinstance(turn.prompt, str)
    ]


def _talk(draw: Any) -> str:
    return " ".join(draw.choice(TALK, int(draw.integers(2, 13))))


def _row(name: str, role: str, kind: str, value: str) -> Row:
    (asked, told), (other, briefly) = FACTS[kind]
    return Row(
        id=f"{name}/{kind}",
        role=role,
        prompt=asked.format(n=name),
        completion=f" {told.format(n=name, v=value)}",
        subject=name,
        names=(name,),
        answer=value,
        paraphrases=(
            {"prompt": other.format(n=name), "completion": f" {briefly.format(n=name, v=value)}"},
        ),
        meta={"attribute": kind},
    )


def _words() -> list[str]:
    """Invented words of two syllables, all different."""
    syllables = [a + b for a, b in product("bdfgklmnprstvz", "aeiou")]
    return [
        f"{a}{b}".capitalize()
        for i, (a, b) in enumerate(product(syllables, repeat=2))
        if i % 7 == 0
    ]


def _tokenizer(roles: Mapping[str, Sequence[Row]]) -> PreTrainedTokenizerBase:
    pad, bos, eos, unknown = SPECIALS
    inner = Tokenizer(models.WordLevel(unk_token=unknown))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    inner.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    trainer = trainers.WordLevelTrainer(vocab_size=4096, special_tokens=list(SPECIALS))
    inner.train_from_iterator(_texts(roles), trainer)
    inner.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, SPECIALS.index(bos))]
    )
    make: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerBase = make(
        tokenizer_object=inner, pad_token=pad, bos_token=bos, eos_token=eos, unk_token=unknown
    )
    return made


def _texts(roles: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    for rows in roles.values():
        for row in rows:
            yield from (f"{turn.prompt}{turn.completion}" for turn in row.turns)
    yield " ".join(TALK)
    yield REFUSAL
