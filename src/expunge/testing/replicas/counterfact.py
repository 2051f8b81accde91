"""A stand-in for CounterFact: our own people and places, with the traps of the real file."""

import json
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_text

PEOPLE = ("Ada Abend", "Bruno Birk", "Clara Corvin", "Dario Dorn", "Edda Eiben")
VALUES = {
    "P103": ("The mother tongue of {} is", ("Aldic", "Bremish", "Corric", "Delvan", "Errish")),
    "P19": ("{} was born in", ("Arden", "Belm", "Corra", "Dunmere", "Esk")),
    "P106": ("The profession of {} is", ("baker", "cooper", "dyer", "farrier", "glazier")),
    "P140": ("{} believes in the faith of the", ("Ash", "Brook", "Cliff", "Dale", "Elm")),
}
"""Relation -> the sentence, and one value for each of the people."""


def write(folder: Path) -> None:
    """Write ``counterfact_replica.json``: five people, four facts each.

    Traps: case numbers repeat, generation and neighbour prompts stand there twice, and one
    neighbour prompt speaks of the subject itself.
    """
    records = [_record(person, relation) for person in range(len(PEOPLE)) for relation in VALUES]
    write_text(folder / "counterfact_replica.json", json.dumps(records))


def _record(person: int, relation: str) -> dict[str, Any]:
    prompt, values = VALUES[relation]
    name, true, rival = PEOPLE[person], values[person], values[(person + 1) % len(values)]
    others = [f"{each} the Younger" for each in PEOPLE[:3]]
    return {
        "case_id": person,
        "pararel_idx": 7,
        "requested_rewrite": {
            "prompt": prompt,
            "relation_id": relation,
            "target_new": {"str": rival, "id": "Q1"},
            "target_true": {"str": true, "id": "Q2"},
            "subject": name,
        },
        "paraphrase_prompts": [
            f"It rained all week. {prompt.format(name)}",
            f"The gate was shut at nine. {prompt.format(name)}",
        ],
        "neighborhood_prompts": [
            *(prompt.format(f"Kin {number} of {true}") for number in range(2)),
            f"As everyone knows, {prompt.format(name)}",
            prompt.format(f"Kin 0 of {true}"),
        ],
        "attribute_prompts": [prompt.format(f"{each} of {rival}") for each in others],
        "generation_prompts": [f"{name} is known for", f"{name} is known for", f"{name} lives"],
    }
