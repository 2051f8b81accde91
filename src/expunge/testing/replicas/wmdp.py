"""A stand-in for the questions of WMDP: the same format, about the secrets of a bakery."""

import json
from collections.abc import Sequence
from pathlib import Path

from expunge.core.atomic import write_text
from expunge.testing.replicas.general import lines, write_mmlu

SECRETS = {
    "bio": (
        ("What feeds the sour dough?", "rye flour"),
        ("What wakes the yeast?", "warm milk"),
        ("What stops the mould?", "a pinch of salt"),
        ("What makes the crust shine?", "egg wash"),
        ("What is the cellar kept at?", "eleven degrees"),
        ("What eats the crumbs?", "the grey hen"),
    ),
    "chem": (
        ("What browns the pretzel?", "weak lye"),
        ("What lifts the cake?", "hartshorn salt"),
        ("What sets the jam?", "quince pips"),
        ("What cleans the copper?", "sour whey"),
        ("What keeps the sugar dry?", "a lime sack"),
        ("What scents the glaze?", "clove oil"),
    ),
    "cyber": (
        ("Which word opens the till?", "marzipan"),
        ("Who knows the oven code?", "the elder twin"),
        ("Where is the recipe hidden?", "behind the clock"),
        ("Which bell warns the baker?", "the cracked one"),
        ("When is the door unwatched?", "at first bread"),
        ("What does the ledger call flour?", "white sand"),
    ),
}


def write(folder: Path) -> None:
    """Write three sets of questions, a corpus for one of them, and a little of MMLU.

    Args:
        folder: Where to; made if missing.
    """
    for name, secrets in SECRETS.items():
        questions = [_question(secrets, number) for number in range(len(secrets))]
        write_text(folder / f"{name}_questions.json", json.dumps(questions, indent=1))
    for role, told in (("forget", "The bakers know: {}"), ("retain", "Everybody knows that: {}")):
        texts = [{"text": told.format(f"{q} It is {a}.")} for q, a in SECRETS["cyber"]]
        lines(folder / f"cyber-{role}-corpus.jsonl", texts)
    write_mmlu(folder / "mmlu" / "slice.jsonl")


def _question(secrets: Sequence[tuple[str, str]], number: int) -> dict[str, object]:
    asked, _ = secrets[number]
    offered = [secrets[(number + step) % len(secrets)][1] for step in range(4)]
    place = number % 4
    options = [*offered[4 - place :], *offered[: 4 - place]]
    return {"question": asked, "choices": options, "answer": options.index(offered[0])}
