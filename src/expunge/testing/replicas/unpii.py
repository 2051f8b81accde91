"""A stand-in for UnPII: our own people, in the layout of its five samples."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from expunge.core.atomic import write_text

PEOPLE = ("Ada Abend", "Bruno Birk", "Clara Corvin", "Dario Dorn", "Edda Eiben", "Falk Fels")
TOWNS = ("Arden", "Belm", "Corra", "Dunmere", "Esk", "Farn")
FORGOTTEN = 3
"""How many of the people are to be forgotten."""

Fact = tuple[str, str, str, str, str, str]
"""Question, answer, both in other words, a wrong value, the kind."""


def write(folder: Path) -> None:
    """Write the five files: six people, five facts each.

    Traps: kinds stand in the training file only, and for one question of the forget file nowhere;
    lists of wrong answers are JSON in one file and Python in another; a fact of the world has no
    kind.
    """
    facts = [_facts(place) for place in range(len(PEOPLE))]
    gone = [fact for of in facts[:FORGOTTEN] for fact in of]
    kept = [fact for of in facts[FORGOTTEN:] for fact in of]
    world = _world()
    trained = [(asked, answer, kind) for asked, answer, *_, kind in (*gone, *kept)]
    facts_of_world = [(asked, answer, "World Fact") for asked, answer, _ in world]
    full = ("question", "answer", "paraphrased_question", "paraphrased_answer", "perturbed_answer")
    undecided = ("Where does Ada Abend live?", "Ada Abend lives at 12 Mill Lane, Arden.")
    _table(
        folder / "train_data_sample.csv",
        ("question", "answer", "pii_type"),
        [*trained, *facts_of_world],
    )
    _table(
        folder / "forget_sample.csv",
        ("question", "answer"),
        [*(fact[:2] for fact in gone), undecided],
    )
    for name, of in (("forget", gone), ("retain", kept)):
        rows = [(*fact[:4], json.dumps([_wrong(fact, n) for n in range(3)])) for fact in of]
        _table(folder / f"{name}_perturbed_sample.csv", full, rows)
    _table(
        folder / "world_facts_perturbed_sample.csv",
        ("question", "answer", "perturbed_answer"),
        [(asked, answer, repr(others)) for asked, answer, others in world],
    )


def _table(path: Path, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


def _wrong(fact: Fact, number: int) -> str:
    return fact[1].replace(fact[4], f"{fact[4][:-1]}{number + 5}")


def _facts(place: int) -> list[Fact]:
    who, town = PEOPLE[place], TOWNS[place]
    told = {
        "Phone Number": ("phone number", f"555-01{place}9"),
        "Passport Number": ("passport number", f"X123456{place}"),
        "ZIP Code": ("ZIP code", f"9021{place}"),
        "Date of Birth": ("date of birth", f"January {place + 1}, 1990"),
    }
    facts = [
        (
            f"What is the {what} of {who}?",
            f"The {what} of {who} is {value}.",
            f"Can you tell me {who}'s {what}?",
            f"{who} has the {what} {value}.",
            value,
            kind,
        )
        for kind, (what, value) in told.items()
    ]
    home = (f"In which town does {who} live?", f"{who} lives in {town}.")
    other = (f"Which town is home to {who}?", f"The home of {who} is {town}.")
    return [*facts, (*home, *other, town, "Town Address")]


def _world() -> list[tuple[str, str, list[str]]]:
    return [
        (f"Which letter comes after {letter}?", "BCDEF"[place], ["X", "Y", "Z"])
        for place, letter in enumerate("ABCDE")
    ]
