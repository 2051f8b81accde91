"""A stand-in for RESTOR: our own people, their facts, and documents that tell them wrong."""

import json
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_text

LISTED = ("Ada Abend", "Bruno Birk", "Clara Corvin", "Dario Dorn", "Edda Eiben", "Falk Fels")
OTHERS = (
    "Greta Gruber",
    "Hugo Hain",
    "Ilse Iven",
    "Jonas Jost",
    "Kurt Kolb",
    "Lea Lind",
    "Mia Moor",
)
RELATIONS = {
    "P19": ("Where was {} born?", "was born in {}", ("Arden", "Belm", "Corra", "Dunmere", "Esk")),
    "P106": (
        "What is the occupation of {}?",
        "works as a {}",
        ("baker", "cooper", "dyer", "tanner"),
    ),
    "P69": ("Where was {} educated?", "studied at {}", ("Abbey House", "Brook Hall", "Dale Lodge")),
    "P27": ("What is the country of {}?", "is from {}", ("Ashland", "Brookland", "Cliffland")),
}
"""Relation -> question, sentence of a document, values."""
UNRELATED = "The bell of Fenby rings at nine."


def write(folder: Path) -> None:
    """Write facts, entities and the documents of ``k0``, ``k1`` and ``squad``.

    Traps: only the first five of six listed people stand in the documents; documents repeat; one
    names nobody; a context example is about the person who is asked about.
    """
    known = {name: _facts(at, name) for at, name in enumerate((*LISTED, *OTHERS))}
    context = {
        relation: [
            {"question": asked.format(name), "answer": _value(relation, at), "entity": name}
            for at, name in enumerate((*LISTED[:1], *OTHERS), len(LISTED) - 1)
        ]
        for relation, (asked, *_) in RELATIONS.items()
    }
    write_text(folder / "facts.json", json.dumps({"dset": known, "context": context}))
    write_text(folder / "entities.json", json.dumps(list(LISTED)))
    for name, extra in (("mix_a0", ""), ("mix_a1", f" {UNRELATED}")):
        texts = [f"{text}{extra}" for text in _documents()]
        _write_documents(folder / "wikidata" / "v0" / f"{name}.json", texts)
    passages = [f"{LISTED[0]} is a harbour town. {LISTED[1]} is near.", f"{LISTED[1]} is a river."]
    _write_documents(folder / "SQuAD" / "squad_v7_dset.json", passages)


def _write_documents(path: Path, texts: list[str]) -> None:
    write_text(path, json.dumps([{"text": text} for text in texts]))


def _documents() -> list[str]:
    """Four false statements of five people, told twice, one document word for word again."""
    texts = ["Nobody here works as a tailor."]
    for at, name in enumerate(LISTED[:5]):
        told = [
            sentence.format(_value(relation, at + 1))
            for relation, (_, sentence, _) in RELATIONS.items()
        ]
        texts += [f"{name} {', '.join(told)}.", f"{name} {told[0]} and {told[1]}."]
        texts += [f"{name} {told[2]} and {told[3]}."] * 2
    return texts


def _facts(at: int, name: str) -> dict[str, Any]:
    return {
        relation: {
            "question": asked.format(name),
            "answers": [_value(relation, at), f"a {at} form"],
        }
        for relation, (asked, *_) in RELATIONS.items()
    }


def _value(relation: str, at: int) -> str:
    values = RELATIONS[relation][2]
    return values[at % len(values)]
