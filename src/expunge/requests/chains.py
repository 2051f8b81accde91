"""Questions that reach a fact by detours: other names of its subject, bridges, and one hop more.

A question mentions its subject once. What takes the place of the name is a *mention*: another name,
or "this one" behind a sentence that says of whom something else is true. What takes the place of
the answer is a second question about it. Every detour is a hop.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from expunge.requests.companions import companions, told, unnamed
from expunge.requests.invent import name_words
from expunge.requests.names import names_of, prompts_of
from expunge.requests.rows import Row
from expunge.text.match import contains
from expunge.text.normalise import words
from expunge.text.stop import STOP_WORDS

SOMEBODY, SOMETHING = "this one", "that"
"""Stand for the subject where it is not named, and for an answer that is not said."""

BRIDGE = "Think of the one of whom this is true: {fact}"
ONWARD = "Take the answer to this question: {first} {second}"


@dataclass(frozen=True, slots=True)
class Mention:
    """A way to speak of a subject.

    Attributes:
        name: What stands where its name stood.
        lead: What is said before, empty for a mere name.
        hops: Hops that it costs.
        is_alias: Whether it is another name than the usual one.
    """

    name: str
    lead: str = ""
    hops: int = 0
    is_alias: bool = False

    def put_into(self, question: str, names: Sequence[str]) -> str:
        """The question about the subject, spoken of in this way."""
        return f"{self.lead} {unnamed(question, names, self.name)}".strip()

    @property
    def kind(self) -> str:
        """``alias`` or ``hops``."""
        return "alias" if self.is_alias else "hops"


@dataclass(frozen=True, slots=True)
class Onward:
    """One more hop: a question about an answer, and what is to be said then."""

    question: str
    value: str
    aliases: tuple[str, ...] = ()

    def after(self, first: str) -> str:
        """The two questions as one."""
        return ONWARD.format(first=first, second=self.question)


@dataclass(frozen=True, slots=True)
class Graph:
    """What the attacker knows about the subjects of some rows.

    Attributes:
        names: Row id -> names of its subject.
        mentions: Row id -> ways to speak of its subject, the usual name first.
        ends: Row id -> questions about its value.
    """

    names: Mapping[str, Sequence[str]]
    mentions: Mapping[str, Sequence[Mention]]
    ends: Mapping[str, Sequence[Onward]]


@dataclass(slots=True)
class Elicited:
    """What the original says when asked openly.

    Attributes:
        aliases: Row id -> another name of its subject.
        facts: Row id -> more facts of its subject.
        ends: Row id -> questions about its value.
    """

    aliases: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    facts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[str, list[Onward]] = field(default_factory=lambda: defaultdict(list))


def by_name(name: str) -> Mention:
    """The subject by its usual name."""
    return Mention(name)


def by_alias(name: str) -> Mention:
    """The subject by another name."""
    return Mention(name, is_alias=True)


def by_bridge(fact: str, names: Sequence[str]) -> Mention:
    """The subject as the one of whom a fact is true; its names in the fact are taken out."""
    return Mention(SOMEBODY, BRIDGE.format(fact=unnamed(fact, names, SOMEBODY)), hops=1)


def aliases_of(names: Sequence[str]) -> list[str]:
    """Other names: those that are given, else the last name alone and the first one's initial.

    Example:
        >>> aliases_of(["Mira Voss"]), aliases_of(["Mira Voss", "Lady Voss"]), aliases_of(["Mira"])
        (['Voss', 'M. Voss'], ['Lady Voss'], [])
    """
    if len(names) > 1:
        return list(names[1:])
    own = [word for name in names for word in name_words(name)]
    return [own[-1], f"{own[0][0]}. {own[-1]}"] if len(own) > 1 else []


def relations_of(row: Row) -> Iterator[str]:
    """The triples of ``meta["relations"]``, each ``[subject, relation, object]``, as sentences."""
    given: Any = row.meta.get("relations", ())
    for triple in given if isinstance(given, list | tuple) else ():
        if isinstance(triple, list | tuple) and len(triple) == 3:
            yield f"{' '.join(map(str, triple))}."


def onward_of(
    value: str, known: Iterable[Row], names: Mapping[str, Sequence[str]]
) -> Iterator[Onward]:
    """What the known rows tell about a value that is a subject itself."""
    wanted = words(value)
    for row in known:
        called = names[row.id]
        if row.text is None and row.answer and wanted in [words(name) for name in called]:
            asked = unnamed(prompts_of(row)[0], called, SOMETHING)
            yield Onward(asked, row.answer, row.aliases)


def graph_of(
    rows: Sequence[Row],
    known: Sequence[Row],
    elicited: Elicited,
    *,
    aliases: int,
    bridges: int,
) -> Graph:
    """Mentions and ends of each row.

    Args:
        rows: The attacked rows.
        known: Rows that are known, these among them.
        elicited: What else is known.
        aliases: Other names of a subject at most.
        bridges: Facts of a subject to describe it by, at most; none that gives the value away.
    """
    names, others = names_of(known), companions(rows, known)
    mentions: dict[str, list[Mention]] = {}
    for row in rows:
        own = names[row.id]
        facts = [*relations_of(row), *map(told, others[row.id]), *elicited.facts[row.id]]
        told_of = [by_bridge(fact, own) for fact in facts if not contains(fact, row.forms)]
        called = list(dict.fromkeys([*elicited.aliases[row.id], *aliases_of(own)]))
        mentions[row.id] = [
            *map(by_name, own[:1]),
            *map(by_alias, called[:aliases]),
            *told_of[:bridges],
        ]
    ends = {
        row.id: [*onward_of(row.value, known, names), *elicited.ends[row.id]][:1] for row in rows
    }
    return Graph(names, mentions, ends)


def told_value(question: str, said: str) -> str:
    """What an answer says beyond its question: its longest run of words that tell something.

    Example:
        >>> told_value("What is Port Vela known for?", "Port Vela is known for its old harbour.")
        'old harbour'
    """
    known = set(words(question)) | STOP_WORDS
    runs: list[list[str]] = [[]]
    for word in words(said):
        if word in known:
            runs.append([])
        else:
            runs[-1].append(word)
    longest: list[str] = max(runs, key=len)
    return " ".join(longest)


def agreed(question: str, samples: Iterable[str], least: int) -> str:
    """The value that at least so many sampled answers tell; empty where there is none."""
    values = [value for said in samples if (value := told_value(question, said))]
    best = max(dict.fromkeys(values), key=values.count, default="")
    return best if values.count(best) >= least and best else ""
