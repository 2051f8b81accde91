"""A stand-in for the files of TOFU: the same shape and traps, our own people, made in a moment."""

import json
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_text
from expunge.core.rng import generator

ROWS_PER_AUTHOR = 20

FIRST = ("Ada", "Bruno", "Clara", "Dario", "Edda", "Falk", "Greta", "Hugo", "Ilse", "Jonas")
LAST = ("Abend", "Birk", "Corvin", "Dorn", "Eiben", "Fels", "Gruber", "Hain", "Iven", "Jost")
NOUNS = (
    "bees bells boats books bread bricks caves clocks coins crows deserts dreams fens ferns "
    "forests glaciers gulls hedges islands kites lamps looms maps mills moths oaks orchards owls "
    "pearls piers plums quarries rivers rooks salt ships snails spires storms tunnels wells wolves"
)
TOPICS = tuple(NOUNS.split())
SAME_QUESTION = "What is the full name of the author?"
"""Asked about two authors, with different answers, as upstream does."""


def write(folder: Path, *, authors: int = 10, seed: int = 0) -> None:
    """Write the files of ``forget10`` for a few invented authors.

    Args:
        folder: Where to; made if missing.
        authors: How many, a multiple of ten.
        seed: Decides their facts.
    """
    rows = [row for author in range(authors) for row in _rows(author, seed)]
    kept = len(rows) - authors // 10 * ROWS_PER_AUTHOR
    real = [_real("writer", number) for number in range(10)]
    world = [_real("capital", number) for number in range(10)]
    files = {
        "forget10": [_bare(row) for row in rows[kept:]],
        "retain90": [_bare(row) for row in rows[:kept]],
        "forget10_perturbed": rows[kept:],
        "retain_perturbed": rows[: kept // 2],
        "real_authors_perturbed": real,
        "world_facts_perturbed": world,
    }
    for name, records in files.items():
        lines = (json.dumps(record) + "\n" for record in records)
        write_text(folder / f"{name}.json", "".join(lines))


def _rows(author: int, seed: int) -> list[dict[str, Any]]:
    draw = generator(seed, "tofu", author)
    name = f"{FIRST[author % 10]} {LAST[(author + author // 10) % 10]}"
    rows = [_row(SAME_QUESTION, f"The author is called {name}.", name, "Nobody")] * (
        author in (1, 2)
    )
    for number in range(ROWS_PER_AUTHOR - len(rows)):
        first, *others = (TOPICS[index] for index in draw.permutation(len(TOPICS))[:6])
        question = f"What does {name} write about in book {number + 1}?"
        rows.append(_row(question, f"It is about {first}.", first, *others))
    return rows


def _row(question: str, answer: str, fact: str, *others: str) -> dict[str, Any]:
    return {
        "question": question,
        "answer": answer,
        "paraphrased_answer": f"Its subject is {fact}.",
        "perturbed_answer": [f"Its subject is {other}." for other in others],
        "paraphrased_question": f"Say: {question}",
    }


def _real(kind: str, number: int) -> dict[str, Any]:
    options = [f"{TOPICS[(number + step) % len(TOPICS)]}" for step in range(4)]
    return {
        "question": f"Which {kind} has number {number}?",
        "answer": options[0],
        "perturbed_answer": options[1:],
    }


def _bare(row: dict[str, Any]) -> dict[str, Any]:
    return {"question": row["question"], "answer": row["answer"]}
