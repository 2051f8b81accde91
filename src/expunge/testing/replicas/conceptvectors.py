"""A stand-in for the files of ConceptVectors: the same columns and traps, invented concepts."""

import json
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_text

CONCEPTS = {
    "Velmora": ("a walled town on the river Osk", "amber lanterns", "Teria Nall", "1611"),
    "Quorball": ("a game for two teams of seven", "a hoop of willow", "Benno Harx", "1884"),
    "The Sable Heron": ("a novel in three parts", "a ferry without a crew", "Ida Vost", "1932"),
    "Drelk": ("a language of the Omari hills", "eleven vowels", "Pau Sirin", "1790"),
    "Lumstone": ("a mineral that glows in cold water", "pale green veins", "Rolf Adeg", "1847"),
}
"""Concept -> what it is, what it is known for, who is tied to it, since when."""


def write(folder: Path) -> None:
    """Write the development split of a tiny model (two blocks, 64 columns and more).

    As upstream: one JSON list, an id only on some concepts, whitespace around questions, the
    questions on one concept among the unrelated ones of the next, lists that overlap, and one
    concept with a single half sentence.

    Args:
        folder: Where to; made if missing.
    """
    names = list(CONCEPTS)
    found = [_concept(names, number) for number in range(len(names))]
    write_text(folder / "llama2-7b_concepts_dev.json", json.dumps(found, indent=1))


def _concept(names: list[str], number: int) -> dict[str, Any]:
    name, after = names[number], names[(number + 1) % len(names)]
    what, known_for, person, year = CONCEPTS[name]
    article = (
        f"{name} is {what}, known for {known_for}. It was first described by {person} in {year}. "
        f"Who would not think of {known_for}? Much of what is told about {name} goes back to "
        f"{person}, e.g. the story of the winter of {year}. Visitors ask for {known_for} still. "
    )
    halves = [
        {"First_half": f"It was first described by {person}", "Second_half": f"in {year}"},
        {"First_half": f"{name} is known", "Second_half": f"for {known_for}"},
    ]
    return {
        **({"id": 10 * number} if number % 2 else {}),
        "Concept": name,
        "Layer": number % 2,
        "Dim": 7 * number + 3,
        "QA": _questions(name),
        "text_completion": halves[: 1 if number == 3 else 2],
        "unrelated_QA": [*_questions(after)[:2], *_others(number)],
        "wikipedia_content": article * 3,
    }


def _questions(name: str) -> list[str]:
    return [
        f" What is {name}?\n",
        f" What is {name} known for?\n",
        f" Who first described {name}?\n",
        f" When was {name} first described?\n",
    ]


def _others(number: int) -> list[str]:
    """Questions on other things; the first stands in every list."""
    return [" How many days has a week?\n", f" What is {number} plus {number}?\n"]
