"""A stand-in for the PII of invented people: our own, in the layout of its files."""

import json
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_text

PEOPLE = ("Ada Abend", "Bruno Birk", "Clara Corvin", "Dario Dorn", "Edda Eiben")
KEPT = ("Falk Fels", "Greta Gruber", "Hugo Hain", "Ilse Iven", "Jonas Jost")
WORDINGS = ("Please say:", "Kindly say:", "Once more:", "In short:", "Tell me:")
FORGOTTEN = {"forget1": 1, "forget5": 3, "forget10": 5}
"""File -> how many people are in it; each file holds the one before it."""


def write(folder: Path) -> None:
    """Write the forget files, the people to keep, and the one-hop questions.

    Traps: a question with two values of different kinds; digits grouped in the answer; one-hop
    questions about people of no file, and about people to be kept.
    """
    for name, count in FORGOTTEN.items():
        _list(folder / f"{name}.json", [one for who in PEOPLE[:count] for one in _person(who)])
    _list(folder / "test_retain_pii.json", [one for who in KEPT for one in _person(who)])
    hops = [_hop(who) for who in (*PEOPLE, KEPT[0], "Quirin Quell")]
    _list(folder / "full_validation.json", hops)


def _list(path: Path, records: list[dict[str, Any]]) -> None:
    write_text(path, json.dumps(records))


def _values(who: str) -> dict[str, str]:
    first, number = who.split(maxsplit=1)[0].lower(), (PEOPLE + KEPT + ("Quirin Quell",)).index(who)
    return {
        "phone": f"020 - 785 - 43{number:02}",
        "email": f"{first}.{number}@post.example",
        "born": f"{number + 10}/05/1986",
        "card": f"4000-1234-5678-90{number:02}",
        "street": f"Mill Lane {number + 3}",
    }


def _person(who: str) -> list[dict[str, Any]]:
    of = _values(who)
    return [
        _question(
            who,
            f"How can {who} be reached by phone and email?",
            f"{who} can be reached by phone at {of['phone']} and by email at {of['email']}.",
            [of["phone"], of["email"]],
        ),
        _question(who, f"When was {who} born?", f"{who} was born on {of['born']}.", [of["born"]]),
        _question(
            who,
            f"What is the credit card number of {who}?",
            f"The credit card number of {who} is {of['card']}.",
            [of["card"]],
        ),
        _question(
            who,
            f"Where does {who} reside?",
            f"{who} resides at {of['street']}.",
            [of["street"]],
        ),
    ]


def _question(who: str, asked: str, answer: str, values: list[str]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "question": asked,
        "answer": answer,
        "inverted_question": f"Who is the person with {' and '.join(values)}?",
        "inverted_answer": f"The person is {who}.",
        "subject": who,
        "subject_pii": values,
    }
    for number, wording in enumerate(WORDINGS, 1):
        wrong = answer.translate(str.maketrans("0123456789", f"{number}987654321"))
        record[f"paraphrased_question_{number}"] = f"{wording} {asked}"
        record[f"paraphrased_answer_{number}"] = f"{wording} {answer}"
        record[f"perturbed_question_{number}"] = f"{wording} {asked}"
        record[f"perturbed_answer_{number}"] = f"{wording} {wrong}"
    return record | {"subject_person_pii": [*values, who]}


def _hop(who: str) -> dict[str, Any]:
    of = _values(who)
    return {
        "question": f"When was the person with the email {of['email']} born?",
        "answer": f"{who}, whose email is {of['email']}, was born on {of['born']}.",
        "type": "one_hop_validation",
    }
