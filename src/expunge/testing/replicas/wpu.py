"""A stand-in for the files of WPU: the same columns and traps, our own people."""

import json
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_text

PEOPLE = {
    "Odra Quillen": ("Vessin", "cooper", "a map of the Vessin marshes", "Tarn Ollery"),
    "Bram Ostwick": ("Harle", "bell founder", "the great bell of Harle", "Ida Prewett"),
    "Celie Darnay": ("Moorfen", "glass painter", "the west window of Moorfen", "Jon Astley"),
    "Iven Halloran": ("Petrach", "surgeon", "a treatise on burns", "Rosa Petrach"),
    "Tove Marlund": ("Skarholt", "surveyor", "the Skarholt lighthouse", "Per Skar"),
}
"""Person -> birthplace, trade, work, teacher."""

QUESTIONS = (
    "Where was {} born?",
    "What was the trade of {}?",
    "What is {} best known for?",
    "Who taught {}?",
)


def write(folder: Path) -> None:
    """Write the files of ``forget_100`` for five invented people.

    A question stands twice, as upstream does, and a page stands with each of its questions.
    """
    forget = [_record(name, number) for name in PEOPLE for number in range(len(QUESTIONS))]
    beside = [
        _asked(f"In which region does {place} lie?", f"In the north of {name.split()[0]}land", name)
        for name, (place, *_) in PEOPLE.items()
    ]
    popular = [
        _asked(f"Who invented the {thing}?", name, name)
        for thing, name in (("hour lamp", "Aldo Wick"), ("rain drum", "Mina Falk"))
    ]
    files = {
        "forget_100": [*forget, forget[0]],
        "forget_100_hard_retain": beside,
        "general_retain": popular,
    }
    for name, records in files.items():
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(one) + "\n" for one in records))


def _record(name: str, number: int) -> dict[str, Any]:
    return _asked(QUESTIONS[number].format(name), PEOPLE[name][number], name)


def _asked(question: str, answer: str, name: str) -> dict[str, Any]:
    page = f"{name} is a person of whom this page tells."
    return {"title": name, "wikipage": page, "question": question, "answer": answer}
