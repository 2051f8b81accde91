"""The upstream files of RESTOR: facts, the entities that are asked about, false documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.data.facts import first_file, incomplete
from expunge.data.upstream import records
from expunge.data.whole import json_object, json_texts

MIXES = {
    f"k{k}": (
        f"wikidata/v0/mix_a{k}.json",
        f"wikidata_v0_mix_a{k}.json",
        f"wikidata_v0_mix_a{k}_slice.json",
    )
    for k in range(6)
}
DOCUMENTS: Mapping[str, Sequence[str]] = {
    **MIXES,
    "squad": ("SQuAD/squad_v7_dset.json", "squad_v7_dset.json", "squad_v7_slice.json"),
}
"""Split -> names its documents may have."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One relation of one entity.

    Attributes:
        question: What is asked.
        answers: Accepted answers, at least one.
    """

    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """The true facts.

    Attributes:
        known: Entity -> relation -> fact.
        shown: Relation -> questions with an answer, of the entity named first.
        listed: The entities the benchmark asks about.
    """

    known: Mapping[str, Mapping[str, Fact]]
    shown: Mapping[str, Sequence[tuple[str, str, str]]]
    listed: Sequence[str]

    def examples(self, relation: str, entity: str, most: int) -> list[tuple[str, str]]:
        """Questions with answers of a relation, none of them about the entity."""
        others = [(q, a) for who, q, a in self.shown.get(relation, ()) if who != entity]
        return others[:most]

    def values(self, relation: str) -> set[str]:
        """Everything that is the value of a relation of somebody."""
        of_others = {answer for _, _, answer in self.shown.get(relation, ())}
        facts = (of[relation] for of in self.known.values() if relation in of)
        return of_others | {answer for fact in facts for answer in fact.answers}


def read_facts(data: Path) -> Facts:
    """Read ``facts.json`` and ``entities.json``.

    Raises:
        ExpungeError: E-DATA-001 to E-DATA-010 for files that are missing or broken, E-DATA-014
            when an entity is asked about of which nothing is known.
    """
    path = first_file(data, ("facts.json",))
    content = json_object(path, "one JSON object with 'dset' and 'context'.")
    try:
        known = {
            entity: {relation: _fact(given) for relation, given in of.items()}
            for entity, of in content["dset"].items()
        }
        shown = {
            relation: [
                (str(each["entity"]), str(each["question"]), str(each["answer"])) for each in of
            ]
            for relation, of in content["context"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise incomplete(
            path.name,
            f"{error!r} where RESTOR has something else",
            "'dset' (entity, relation, question and answers) and 'context' (relation, examples).",
        ) from error
    listed = json_texts(first_file(data, ("entities.json",)))
    if strangers := [name for name in listed if name not in known]:
        raise ExpungeError(
            "E-DATA-014",
            f"facts.json lacks {len(strangers)} listed entities, first {strangers[0]!r}.",
            "facts of every entity in entities.json.",
            "Take all files from one release.",
        )
    return Facts(known=known, shown=shown, listed=sorted(listed))


def read_documents(data: Path, split: str, entities: Sequence[str]) -> dict[str, str | None]:
    """The documents of a split, each with the entity it is about; those that repeat once.

    Returns:
        Text -> the listed entity it names first; None where it names none, as a few do.

    Raises:
        ExpungeError: E-DATA-001 to E-DATA-010.
    """
    path = first_file(data, DOCUMENTS[split])
    return {record["text"]: _about(record["text"], entities) for record in records(path, ("text",))}


def _about(text: str, entities: Sequence[str]) -> str | None:
    places = {name: at for name in entities if (at := text.find(name)) >= 0}
    return min(places, key=lambda name: (places[name], -len(name)), default=None)


def _fact(given: Any) -> Fact:
    question, answers = given["question"], tuple(given["answers"])
    if not isinstance(question, str) or not answers or not all(map(_is_text, answers)):
        raise ValueError(f"question {question!r}")
    return Fact(question, tuple(dict.fromkeys(answers)))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
