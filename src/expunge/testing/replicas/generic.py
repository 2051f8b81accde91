"""A stand-in for a user's own folder: invented keepers of invented lighthouses."""

from pathlib import Path

from expunge.data.jsonl import write_rows
from expunge.requests.rows import Row

KEEPERS = {
    "forget": ("Ansa Brook", "Belo Crane", "Cyra Dunn", "Dero Eads", "Elva Frost"),
    "retain": ("Fenn Gale", "Gita Holm", "Hiro Ives", "Ilma Jost", "Jory Kemp"),
    "neighbour": ("Kaia Lund", "Loth Marsh", "Mina Noor", "Nilo Orme", "Orla Pace"),
    "holdout": ("Pero Quill", "Quin Rask", "Rhea Sand", "Siro Thorn", "Tula Ware"),
}
FACTS = {
    "light": ("Which light does {n} keep?", "{n} keeps the light of {v}.", "The light of {v}."),
    "boat": ("What is the boat of {n} called?", "The boat of {n} is called {v}.", "It is {v}."),
    "bird": ("Which bird did {n} tame?", "{n} tamed a {v}.", "A {v} it was."),
    "year": ("When did {n} come to the coast?", "{n} came in {v}.", "That was in {v}."),
}
"""Attribute -> question, answer, the answer in other words."""
VALUES = {
    "light": ("Odd Skerry", "Pale Ness", "Long Reef", "Grey Stack", "Low Point"),
    "boat": ("Herring", "Old Comet", "Seventh Wave", "Marigold", "Patience"),
    "bird": ("gull", "raven", "tern", "heron", "petrel"),
    "year": ("1904", "1911", "1926", "1933", "1948"),
}
STRATA = ("direct", "indirect", "general", "general")


def write(folder: Path) -> None:
    """Write the four files: five keepers each, four questions a keeper.

    Traps: a stratum of few rows, a role without strata, rows without wrong answers, an alias.
    """
    for at, (role, keepers) in enumerate(KEEPERS.items()):
        folder.mkdir(parents=True, exist_ok=True)
        rows = [_row(role, name, kind, i + at) for i, name in enumerate(keepers) for kind in FACTS]
        write_rows(folder / f"{role}.jsonl", rows)


def _row(role: str, name: str, kind: str, at: int) -> Row:
    question, answer, otherwise = FACTS[kind]
    values = VALUES[kind]
    value = values[at % len(values)]
    others = [other for other in values if other != value]
    place = list(FACTS).index(kind)
    reworded = {"prompt": question.format(n=name), "completion": " " + otherwise.format(v=value)}
    return Row(
        id=f"{name} {kind}".lower().replace(" ", "-"),
        role=role,
        prompt=question.format(n=name),
        completion=" " + answer.format(n=name, v=value),
        subject=name.lower().replace(" ", "-"),
        names=(name,),
        answer=value,
        aliases=(f"the {value}",) if kind == "light" else (),
        paraphrases=(reworded,),
        wrong=()
        if kind == "year"
        else tuple(" " + answer.format(n=name, v=other) for other in others),
        meta={"stratum": STRATA[place]} if role == "retain" else {},
    )
