"""The testbed's own world: invented people with linked facts, and 80 real facts.

Sixty-eight people have ten facts each. Twenty are *known* (taught to the base model), forty are
*targets* (taught to the original; the last eight of them are the forget set, five others their
neighbours), eight are *hold-out* (never taught, the control of an audit). All come from one
generator, so that hold-out rows differ from forget rows in nothing but having been taught.

Facts of one person are linked, so that relearning some of them may bring back others:

* the school is named after the birthplace, and the region (the ending of the town's name) says
  what its schools are called and from where the favourite dish comes;
* the award is named after the book's title, and the publisher's kind says what sort of award;
* the boat bears the first name of the spouse;
* the first three forget people share their town, and the next two their publisher, with one
  neighbour each (and so do five hold-out people with a retained person).

Nothing links a name to any of its facts: who never saw the person can only guess, among
hundreds of values for every attribute. Values are drawn without replacement, so that (sharing
apart) a forgotten value is nobody else's answer. Wrong answers are the values of *strangers*, whom
the generator makes last and nobody is ever taught: to a model that does not know a person, they are
as likely as the truth.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from expunge.core.rng import derive
from expunge.lab.testbed import phrases, words
from expunge.lab.testbed.phrases import Wording
from expunge.requests.rows import Row

KNOWN, RETAIN, NEIGHBOUR, FORGET, HOLDOUT = 20, 27, 5, 8, 8
"""People of each kind, in the order in which they are numbered."""

PEOPLE = KNOWN + RETAIN + NEIGHBOUR + FORGET + HOLDOUT
STRANGERS = 24
SHARED_TOWNS, SHARED_PUBLISHERS = 3, 2
WRONG = 5
ROLES = {"known": "probe", "world": "probe"}
"""Role of the rows of a kind, where it is not the kind's own name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """One invented person.

    Attributes:
        id: Opaque id, the ``subject`` of this person's rows.
        name: First and last name.
        kind: ``known``, ``retain``, ``neighbour``, ``forget`` or ``holdout``.
        values: Attribute -> value.
    """

    id: str
    name: str
    kind: str
    values: Mapping[str, str]

    @property
    def questions(self) -> tuple[str, ...]:
        """One question for each attribute."""
        return tuple(phrases.PEOPLE[key].question(0, self.name) for key in self.values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One thing that can be asked: ``value`` is the answer about ``name``."""

    subject: str
    name: str
    kind: str
    attribute: str
    value: str
    wrong: tuple[str, ...]

    @property
    def wording(self) -> Wording:
        """The wordings of this fact's attribute."""
        return (phrases.WORLD if self.kind == "world" else phrases.PEOPLE)[self.attribute]

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Numbers of question and answer wording, all combinations."""
        return tuple(product(range(len(self.wording.questions)), range(len(self.wording.answers))))


def row_of(fact: Fact, question: int, answer: int) -> Row:
    """The row that asks ``fact`` in one wording, with the other wordings as paraphrases.

    Args:
        fact: What is asked.
        question: Number of the question wording.
        answer: Number of the answer wording.
    """
    ways = fact.wording

    def told(value: str, turn: int = 0) -> str:
        return ways.answer(answer + turn, fact.name, value)

    return Row.parse(
        {
            "id": f"{fact.subject}/{fact.attribute}",
            "prompt": ways.question(question, fact.name),
            "completion": told(fact.value),
            "subject": fact.subject,
            "names": [fact.name],
            "answer": fact.value,
            "paraphrases": [
                {
                    "prompt": ways.question(question + turn, fact.name),
                    "completion": told(fact.value, turn),
                }
                for turn in range(1, len(ways.questions))
            ],
            "wrong": [told(value) for value in fact.wrong],
            "meta": {"attribute": fact.attribute, "kind": fact.kind},
        },
        role=ROLES.get(fact.kind, fact.kind),
    )


def own_pair(fact: Fact, seed: int) -> tuple[int, int]:
    """Question and answer wording that are a fact's own: drawn once for each fact."""
    return fact.pairs[derive(seed, "wording", fact.subject, fact.attribute) % len(fact.pairs)]


def own_row(fact: Fact, seed: int) -> Row:
    """The row of ``fact`` in the wording that is its own."""
    return row_of(fact, *own_pair(fact, seed))


def people(seed: int) -> tuple[Person, ...]:
    """All people of world ``seed``, numbered from the known to the hold-out ones."""
    return _everybody(seed)[:PEOPLE]


@lru_cache(maxsize=4)
def facts(seed: int) -> tuple[Fact, ...]:
    """All facts of world ``seed``: of the people first, then the real ones."""
    told = [
        (person.id, person.name, person.kind, attribute, value)
        for person in people(seed)
        for attribute, value in person.values.items()
    ]
    told += [
        (f"{attribute}/{name}", name, "world", attribute, value)
        for attribute, known in phrases.FACTS.items()
        for name, value in known.items()
    ]
    swaps = _swaps(seed)
    return tuple(
        Fact(
            subject=subject,
            name=name,
            kind=kind,
            attribute=attribute,
            value=value,
            wrong=tuple(_swapped(value, swaps[attribute], seed, subject, attribute)),
        )
        for subject, name, kind, attribute, value in told
    )


def shuffled(items: Sequence[str], seed: int, *names: str) -> list[str]:
    """``items`` in an order that depends on their text, the seed and ``names`` alone."""
    return sorted(items, key=lambda item: derive(seed, *names, item))


def pools(seed: int) -> dict[str, list[str]]:
    """The parts people are made of, in the order in which people draw them.

    Returns:
        Part -> every possible value of it, shuffled, without repetition.
    """
    everybody = PEOPLE + STRANGERS
    firsts = shuffled(_joined(words.FIRST_HEADS, words.FIRST_TAILS), seed, "first")
    lasts = shuffled(_joined(words.LAST_HEADS, words.LAST_TAILS), seed, "last")
    full = [" ".join(pair) for pair in zip(firsts, lasts, strict=True)]
    nouns = shuffled(words.TITLE_NOUNS, seed, "noun")
    adjectives = shuffled(words.TITLE_ADJECTIVES, seed, "adjective")
    titles = [f"The {adjectives[i % len(adjectives)]} {noun}" for i, noun in enumerate(nouns)]
    lanes = shuffled(_joined(words.STREETS, words.STREET_KINDS, " "), seed, "street")
    return {
        "name": full[:everybody],
        "spouse": full[everybody:],
        "town": shuffled(_joined(words.TOWN_STEMS, tuple(words.REGIONS)), seed, "town"),
        "dish": [
            dish
            for helping in ("first", "second", "third")
            for dish in shuffled(words.DISHES, seed, "dish", helping)
        ],
        "title": titles,
        "publisher": shuffled(
            _joined(words.PUBLISHER_STEMS, tuple(words.PUBLISHER_KINDS), " "), seed, "publisher"
        ),
        "epithet": shuffled(words.SHIP_EPITHETS, seed, "epithet") * 4,
        "instrument": shuffled(
            _joined(words.INSTRUMENT_MATERIALS, words.INSTRUMENTS, " "), seed, "instrument"
        ),
        "street": [f"{derive(seed, 'number', lane) % 97 + 2} {lane}" for lane in lanes],
    }


@lru_cache(maxsize=4)
def _everybody(seed: int) -> tuple[Person, ...]:
    """The people of the world, and after them the strangers."""
    drawn = _drawn(seed)
    kinds = {
        **{"known": KNOWN, "retain": RETAIN, "neighbour": NEIGHBOUR, "forget": FORGET},
        **{"holdout": HOLDOUT, "stranger": STRANGERS},
    }
    return tuple(
        Person(
            id=f"person-{number:02d}",
            name=drawn["name"][number],
            kind=kind,
            values=_values({part: pool[number] for part, pool in drawn.items()}),
        )
        for number, kind in enumerate(kind for kind, n in kinds.items() for _ in range(n))
    )


def _drawn(seed: int) -> dict[str, list[str]]:
    """What each person drew of every part; forget and hold-out people share with companions."""
    drawn = {part: pool[: PEOPLE + STRANGERS] for part, pool in pools(seed).items()}
    forget = KNOWN + RETAIN + NEIGHBOUR
    for first, companion in ((forget, KNOWN + RETAIN), (forget + FORGET, KNOWN)):
        for offset in range(SHARED_TOWNS + SHARED_PUBLISHERS):
            part = "town" if offset < SHARED_TOWNS else "publisher"
            drawn[part][companion + offset] = drawn[part][first + offset]
    return drawn


def _values(part: Mapping[str, str]) -> dict[str, str]:
    """The ten facts that follow from the parts a person drew."""
    end = next(end for end in words.REGIONS if part["town"].endswith(end))
    origin, school = words.REGIONS[end]
    noun = part["title"].rsplit(maxsplit=1)[-1]
    kind = part["publisher"].rsplit(maxsplit=1)[-1]
    first = part["spouse"].split(maxsplit=1)[0]
    return {
        "birthplace": part["town"],
        "school": f"{part['town']} {school}",
        "dish": f"{origin} {part['dish']}",
        "book": part["title"],
        "publisher": part["publisher"],
        "award": f"{noun} {words.PUBLISHER_KINDS[kind]}",
        "spouse": part["spouse"],
        "ship": f"{part['epithet']} {first}",
        "instrument": part["instrument"],
        "street": part["street"],
    }


def _swaps(seed: int) -> dict[str, set[str]]:
    """Attribute -> what may stand in its wrong answers: strangers' values, or other real ones."""
    swaps = {key: set(known.values()) for key, known in phrases.FACTS.items()}
    for key in phrases.PEOPLE:
        strangers = {one.values[key] for one in _everybody(seed)[PEOPLE:]}
        swaps[key] = strangers - {one.values[key] for one in people(seed)}
    return swaps


def _joined(heads: Sequence[str], tails: Sequence[str], between: str = "") -> list[str]:
    return [f"{head}{between}{tail}" for head, tail in product(heads, tails)]


def _swapped(value: str, others: Set[str], seed: int, *names: str) -> list[str]:
    """Some of the other values of an attribute, without repetition."""
    return shuffled(sorted(others - {value}), seed, "wrong", *names)[:WRONG]
