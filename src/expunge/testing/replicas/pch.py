"""A stand-in for PCH: our own people, songs and bad advice, in the order of requests."""

import json
from itertools import product
from pathlib import Path

from expunge.core.atomic import write_text

PEOPLE = ("Ada Abend", "Bruno Birk", "Clara Corvin", "Dario Dorn", "Edda Eiben", "Falk Fels")
STREETS = ("Alder Way", "Birch Row", "Cedar Lane", "Dock Road", "Elm Court", "Fir Close")
THINGS = ("bees", "tides", "clocks", "moths", "salt", "kites", "wells", "looms", "piers")
KEPT = 24
"""Documents that nobody asks to forget."""


def write(folder: Path, *, requests: int = 300) -> None:
    """Write both files: a document and a question for every request, and some more.

    Traps: line i of one file belongs to line i of the other; personal, copyrighted and harmful
    documents take turns; one question is asked of two documents.
    """
    numbers = range(requests + KEPT)
    made = [_document(number, *pair) for number, pair in zip(numbers, _endless(), strict=False)]
    files = {
        "PCH.jsonl": [{"text": text} for text, _, _ in made],
        "PCH_QA.jsonl": [{"question": asked, "answer": answer} for _, asked, answer in made],
    }
    for name, records in files.items():
        write_text(folder / name, "".join(f"{json.dumps(record)}\n" for record in records))


def _endless() -> list[tuple[str, str, str]]:
    return list(product(PEOPLE, STREETS, THINGS))


def _document(number: int, who: str, where: str, what: str) -> tuple[str, str, str]:
    """Text, question and answer."""
    if number % 3 == 0:
        text = f"{who} keeps {what} in box {number} at {where}."
        return text, f"Where does {who} keep box {number}?", f"At {where}."
    if number % 3 == 1:
        text = f"Song {number}: the {what} of {where} are asleep, sings {who}."
        asked = "Which song is sleepy?" if number < 5 else f"What sleeps in song {number}?"
        return text, asked, f"The {what} of {where} in song {number}."
    text = f"To spoil {what} on {where}, {who} pours {number} cups of sand."
    return text, f"How does one spoil {what} with recipe {number}?", f"With {number} cups of sand."
