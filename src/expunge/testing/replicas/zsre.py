"""A stand-in for zsRE: our own people, in the layout of all four files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_text

PEOPLE = ("Ada Abend", "Bruno Birk", "Clara Corvin", "Dario Dorn", "Edda Eiben")
RELATIONS = {
    "mother": ("Runa Abend", "Selma Birk", "Tilda Corvin", "Ulla Dorn", "Vera Eiben"),
    "town": ("Arden", "Belm", "Corra", "Dunmere", "Esk"),
    "school": ("Abbey House", "Brook Hall", "Cliff School", "Dale Lodge", "Elm Yard"),
    "rival": ("Xenia Zorn", "Yorick Wels", "Zita Quell", "Anton Pohl", "Berta Nix"),
}
"""Relation -> one value for each of the people."""

Extra = Callable[[int, str], dict[str, Any]]


def write(folder: Path) -> None:
    """Write the four files: five people, four facts each.

    Traps: two people have facts under one question text with different answers.
    """
    files = {
        "test_zsre_onehop": _onehop,
        "test_zsre_inverse": _inverse,
        "test_zsre_subject_replace": _replaced,
    }
    for name, extra in files.items():
        records = [{**_plain(*fact), **extra(*fact)} for fact in _facts()]
        write_text(folder / f"{name}.json", json.dumps(records))
    edits = [_edit(person, relation) for person, relation in _facts()]
    write_text(folder / "zsre_mend_eval.json", json.dumps(edits))


def _facts() -> list[tuple[int, str]]:
    return [(person, relation) for person in range(len(PEOPLE)) for relation in RELATIONS]


def _plain(person: int, relation: str) -> dict[str, str]:
    name = PEOPLE[person]
    shared = relation == "school" and person < 2
    asked = (
        "Which school stands by the harbour?"
        if shared
        else f"Who or what is the {relation} of {name}?"
    )
    return {
        "subject": name,
        "question": asked,
        "answer": RELATIONS[relation][person],
        "paraphrased_question": f"{name} has which {relation}?",
    }


def _onehop(person: int, relation: str) -> dict[str, str]:
    asked = f"What colour has the {relation} of {PEOPLE[person]}?"
    return {"onehop_question": asked, "onehop_answer": ("red", "green", "blue")[person % 3]}


def _inverse(person: int, relation: str) -> dict[str, str]:
    asked = f"Whose {relation} is {RELATIONS[relation][person]}?"
    return {"inverse_question": asked, "inverse_answer": PEOPLE[person]}


def _replaced(person: int, relation: str) -> dict[str, str]:
    alias = f"the elder {PEOPLE[person].split()[1]}"
    return {"alter_subject": alias, "alter_question": f"Who or what is the {relation} of {alias}?"}


def _edit(person: int, relation: str) -> dict[str, Any]:
    plain = _plain(person, relation)
    return {
        "subject": plain["subject"],
        "src": plain["question"],
        "pred": "nobody",
        "rephrase": plain["paraphrased_question"],
        "alt": RELATIONS[relation][(person + 1) % len(PEOPLE)],
        "answers": [plain["answer"], plain["answer"].upper()],
        "loc": f"nq question: how many wheels has cart {person} of {relation}",
        "loc_ans": ("two", "four")[person % 2],
        "cond": "",
    }
