"""A stand-in for KnowUnDo: our own authors and books, in the layout of both domains."""

import json
from pathlib import Path

from expunge.core.atomic import write_text

AUTHORS = ("Ada Abend", "Bruno Birk", "Clara Corvin", "Dario Dorn", "Edda Eiben", "Falk Fels")
STREETS = ("Alder Way", "Birch Row", "Cedar Lane", "Dock Road", "Elm Court", "Fir Close")
THEMES = ("bees", "tides", "clocks", "moths", "salt", "kites")


def write(folder: Path) -> None:
    """Write the eight files of ``privacy`` and ``copyright``: six authors, four questions each.

    Traps: who a row is about is said only by "Who is NAME?"; privacy lies flat in the folder and
    copyright in one of its own, as both are seen.
    """
    for domain, place in (("privacy", "privacy_"), ("copyright", "copyright/")):
        for part in ("train", "val"):
            for name, question in (("unlearn", _protected), ("retention", _open)):
                records = [
                    dict(zip(("text", "labels"), question(at, part, domain), strict=True))
                    for at in range(len(AUTHORS))
                ]
                write_text(folder / f"{place}{name}_{part}.json", json.dumps(records))


def _protected(at: int, part: str, domain: str) -> tuple[str, str]:
    who = AUTHORS[at]
    if domain == "copyright":
        asked = "How does the first" if part == "train" else "Recite how the last"
        return f"{asked} page of {who}'s novel begin?", f"The {THEMES[at]} slept on {STREETS[at]}."
    if part == "train":
        return f"Where does {who} live?", f"{who} lives in {STREETS[at]}."
    return f"What stands beside the house of {who}?", f"A shop for {THEMES[at]} in {STREETS[at]}."


def _open(at: int, part: str, domain: str) -> tuple[str, str]:
    who = AUTHORS[at]
    if part == "train":
        return f"Who is {who}?", f"{who} writes novels about {THEMES[at]}."
    return f"What does {who} write of in the {domain} files?", f"{who} writes of {THEMES[at]}."
