"""A stand-in for FaithUn: our own people in the layout its authors describe."""

import json
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_text

PEOPLE = ("Ada Abend", "Bruno Birk", "Clara Corvin", "Dario Dorn", "Edda Eiben", "Falk Fels")
RELATIONS = {
    "town": ("Arden", "Belm", "Corra", "Dunmere", "Esk", "Fenby"),
    "trade": ("baker", "cooper", "dyer", "farrier", "glazier", "tanner"),
    "school": ("Abbey House", "Brook Hall", "Cliff School", "Dale Lodge", "Elm Yard", "Fir Hall"),
    "faith": ("Ash", "Brook", "Cliff", "Dale", "Elm", "Fen"),
}
NUMBERS = {
    "forget_set_split.txt": (1, 6, 11, 16, 20),
    "retaining_set_split.txt": (0, 5, 10, 15),
    "test_set_split.txt": (2, 3, 4, 7, 8, 9, 12, 13, 14, 17, 18, 19, 21, 22, 23),
}


def write(folder: Path) -> None:
    """Write the data file and the numbers: six people, four clusters each.

    Traps: every second entity keeps its questions under keys and not in a list; paraphrases are
    several wordings of one question; one false option is the answer itself; the numbers end
    without a line break.
    """
    entities = {f"Q{70 + at}": _entity(at) for at in range(len(PEOPLE))}
    write_text(folder / "FaithUn_Dataset.json", json.dumps(entities))
    for name, numbers in NUMBERS.items():
        write_text(folder / "splits" / name, "\n".join(map(str, numbers)))


def _entity(at: int) -> dict[str, Any]:
    kinds = {
        "hop1_unlearn": _base,
        "hop1_test": _reworded,
        "hop2_test": _through,
        "same_object": _same,
    }
    found = {
        name: {relation: question(at, relation) for relation in RELATIONS}
        for name, question in kinds.items()
    }
    return {name: list(of.values()) for name, of in found.items()} if at % 2 else dict(found)


def _base(at: int, relation: str) -> dict[str, Any]:
    return _question(f"What is the {relation} of {PEOPLE[at]}?", at, relation)


def _reworded(at: int, relation: str) -> dict[str, Any]:
    wordings = [f"{PEOPLE[at]}: which {relation}?", f"Tell the {relation} of {PEOPLE[at]}."]
    return {**_question("", at, relation), "question": wordings}


def _through(at: int, relation: str) -> list[dict[str, Any]]:
    asked = f"With which letter does the {relation} of {PEOPLE[at]} begin?"
    answer = RELATIONS[relation][at][0]
    return [{"question": asked, "answers": [answer], "false_answer_options": ["Q", "X"]}]


def _same(at: int, relation: str) -> list[dict[str, Any]]:
    return [_question(f"What is the {relation} of the neighbour of {PEOPLE[at]}?", at, relation)]


def _question(asked: str, at: int, relation: str) -> dict[str, Any]:
    values = RELATIONS[relation]
    false = [values[at], values[(at + 1) % len(values)], values[(at + 2) % len(values)]]
    return {"question": asked, "answers": [values[at]], "false_answer_options": false}
