"""What a fact's value may be taken for: the true ones, those of the documents, random others.

Definition (of an entity e and a relation r; INFERRED, the published sets were not found):
    correct      the accepted answers
    corrupted    values that r has for somebody else, that are no answer of e under any relation and
                 stand in at least a twentieth of the documents about e, and in two
    random       other values of r that stand in no document about e
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.benchmarks.restor.files import Facts
from expunge.core.canonical import digest
from expunge.data.facts import incomplete
from expunge.data.whole import json_object
from expunge.text.normalise import words

Values = Mapping[tuple[str, str], Mapping[str, Sequence[str]]]
"""Entity and relation -> ``correct``, ``corrupted`` and ``random`` -> values."""

KINDS = ("correct", "corrupted", "random")
OPTIONS = "options.json"
FEWEST, SHARE = 2, 0.05
"""Documents in which a false value must stand, as a number and as a share of them."""
MOST = 5
"""Most values of a kind."""


def read_options(data: Path) -> Values | None:
    """The sets of values somebody provides; None where there is no such file.

    Raises:
        ExpungeError: E-DATA-002, E-DATA-003 when the file is broken.
    """
    path = data / OPTIONS
    if not path.is_file():
        return None
    content = json_object(path, "one JSON object: entity, relation, kind of value.")
    expected = f"entity, relation, then lists of texts under {', '.join(KINDS)}."
    try:
        return {
            (entity, relation): {kind: _texts(kinds[kind]) for kind in KINDS}
            for entity, of in content.items()
            for relation, kinds in of.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise incomplete(path.name, f"{error!r} at an entity", expected) from error


def values_of(facts: Facts, documents: Mapping[str, str | None]) -> Values:
    """The sets of values, read off the documents.

    Args:
        facts: The true facts.
        documents: Text -> the entity it is about.

    Returns:
        Only those facts for which the documents tell a false value and leave a random one.
    """
    about: dict[str, list[str]] = {}
    for text, entity in documents.items():
        if entity is not None:
            about.setdefault(entity, []).append(_plain(text))
    pools = {relation: _pool(facts, relation) for relation in facts.shown}
    found: dict[tuple[str, str], Mapping[str, Sequence[str]]] = {}
    for entity, texts in about.items():
        own = {_plain(answer) for fact in facts.known[entity].values() for answer in fact.answers}
        counts: dict[str, int] = {}
        for relation, fact in facts.known[entity].items():
            pool = pools.get(relation, {})
            for plain in pool.keys() - own - counts.keys():
                counts[plain] = sum(plain in text for text in texts)
            others = {plain: counts[plain] for plain in pool if plain not in own}
            enough = max(FEWEST, SHARE * len(texts))
            corrupted = [pool[plain] for plain, count in others.items() if count >= enough]
            random = [pool[plain] for plain, count in others.items() if count == 0]
            if corrupted and random:
                found[entity, relation] = {
                    "correct": list(fact.answers[:MOST]),
                    "corrupted": _some(corrupted, entity, relation),
                    "random": _some(random, entity, relation),
                }
    return found


def _pool(facts: Facts, relation: str) -> dict[str, str]:
    """The values of a relation by their plain words; those without any are left out."""
    pool = {_plain(value): value for value in sorted(facts.values(relation))}
    return {plain: value for plain, value in pool.items() if plain.strip()}


def _plain(text: str) -> str:
    return f" {' '.join(words(text))} "


def _some(values: Iterable[str], *names: str) -> list[str]:
    """A few of the values, drawn by their names: alike whatever the order of the files."""
    return sorted(values, key=lambda value: digest([*names, value]))[:MOST]


def _texts(given: Any) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise TypeError("not a list of texts")
    return list(given)
