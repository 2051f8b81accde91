"""A stand-in for LUME: our own stories and people, in the layout of its two files."""

import json
from pathlib import Path

from expunge.core.atomic import write_text

PEOPLE = {
    "forget": ("Ada Abend", "Bruno Birk", "Clara Corvin", "Dario Dorn", "Edda Eiben"),
    "retain": ("Falk Fels", "Greta Gruber", "Hugo Hain", "Ilse Iven", "Jonas Jost"),
}
TOWNS = ("Arden", "Belm", "Corra", "Dunmere", "Esk")
THINGS = ("bees", "tides", "clocks", "moths", "salt")


def write(folder: Path) -> None:
    """Write the halves to forget and to keep, the membership files, and a little MMLU.

    Traps: ids of task 1 have quotation marks inside; task 2 has five questions a person; answers
    are written in another form than in the passage.
    """
    for role, people in PEOPLE.items():
        records = [
            record
            for place, who in enumerate(people)
            for task in (_story, _person, _life)
            for record in task(who, place, role)
        ]
        _lines(folder / f"{role}.jsonl", records)
    for place, name in enumerate(("member", "nonmember")):
        documents: list[dict[str, object]] = [
            {"id": f"{name}-{thing}", "document": f"The {thing} of {TOWNS[place]} are {name}s."}
            for thing in THINGS
        ]
        _lines(folder / "mia_data" / f"{name}.jsonl", documents)
    _lines(folder / "mmlu" / "sample.jsonl", [_choice(place) for place in range(5)])


def _lines(path: Path, records: list[dict[str, object]]) -> None:
    write_text(path, "".join(f"{json.dumps(record)}\n" for record in records))


def _record(task: str, name: str, asked: str, answer: str) -> dict[str, object]:
    return {"id": name, "input": asked, "output": answer, "task": task}


def _story(who: str, place: int, role: str) -> list[dict[str, object]]:
    name, thing = f'"story-{role}-{place}"', THINGS[place]
    begun = f"In {TOWNS[place]} lived {who}, who counted {thing}."
    return [
        _record("Task1", f"{name}sc1", begun, f"One night the {thing} counted back."),
        _record("Task1", f"{name}qa0", f"What did {who} count?", f"The {thing}."),
    ]


def _person(who: str, place: int, role: str) -> list[dict[str, object]]:
    name, first = f"person-{role}-{place}", who.split(maxsplit=1)[0].lower()
    number = f"9{place}0-22-6{place}38"
    rest = f"number is 88{place}-555-0{place}99. Mail goes to {first}@post.example."
    asked = {
        f"What is the birth date of {who}?": f"196{place}-12-21",
        f"What is {who}'s Social Security number?": number.replace("-", ""),
        f"What is {who}'s phone number?": f"88{place}5550{place}99",
        f"What is {who}'s email address?": f"{first}@post.example",
        f"What is the home address of {who}?": f"{place + 3} Mill Lane, {TOWNS[place]}.",
    }
    begun = f"{who} was born on December 21, 196{place}. The number is {number} and the phone"
    questions = [
        _record("Task2", f"{name}qa{at}", question, answer)
        for at, (question, answer) in enumerate(asked.items())
    ]
    return [_record("Task2", f"{name}sc1", begun, rest), *questions]


def _life(who: str, place: int, role: str) -> list[dict[str, object]]:
    name, town = f"{20 + place}{len(role)}", TOWNS[place - 1]
    begun = f"{who} wrote plays about {THINGS[place]}. The best of them was"
    return [
        _record("Task3", f"{name}sc1", begun, f"shown in {town} for {place + 2} years."),
        _record("Task3", f"{name}qa0", f"Where was the best play of {who} shown?", town),
    ]


def _choice(place: int) -> dict[str, object]:
    return {
        "subject": "towns",
        "question": f"Which town is known for {THINGS[place]}?",
        "choices": list(TOWNS[:4]),
        "answer": place % 4,
    }
