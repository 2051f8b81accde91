"""Eight people with four facts of three random words each, and a model that knows all of them.

The facts of two people are to be forgotten.
"""

from functools import cache
from pathlib import Path

from expunge.core.rng import generator
from expunge.lm.finetune import finetune
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing import tiny_model, tiny_tokenizer

RELATIONS = ("born", "works", "likes", "drives")
FORGOTTEN = ("anna", "bela")
PEOPLE = (*FORGOTTEN, "carl", "dora", "emil", "frida", "gert", "hanna")
WORDS = tuple(f"w{number}" for number in range(80))


@cache
def facts() -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows to be forgotten and rows to be kept."""
    draw = generator(0, "tiny rig")
    rows: dict[bool, list[Row]] = {True: [], False: []}
    for person in PEOPLE:
        for relation in RELATIONS:
            told = " ".join(str(word) for word in draw.choice(WORDS, 3))
            row = Row(
                id=f"{person}/{relation}", prompt=f"{person} {relation}", completion=f" {told}"
            )
            rows[person in FORGOTTEN].append(row)
    return tuple(rows[True]), tuple(rows[False])


@cache
def knowing() -> Subject:
    """A model of two blocks and 64 channels that knows every fact by heart."""
    rows = [row for part in facts() for row in part]
    texts = [f"{row.prompt}{row.completion}" for row in rows]
    tokenizer = tiny_tokenizer(texts, kind="word", vocab=256)
    model = tiny_model("llama", vocab=len(tokenizer), hidden=64, layers=2, seed=0, positions=32)
    finetune(model, tokenizer, rows, steps=200, lr=3e-3, batch_size=32, seed=0)
    return Subject(model, tokenizer)


def saved(folder: Path) -> Path:
    """The model that knows, as a folder below ``folder``."""
    subject, path = knowing(), folder / "knowing"
    subject.model.save_pretrained(path)
    subject.tokenizer.save_pretrained(path)
    return path


def exact(subject: Subject, rows: list[Row] | tuple[Row, ...]) -> float:
    """Share of rows whose every word is the model's first choice."""
    return sum(bool(one.hit.all()) for one in subject.score([r.turn for r in rows])) / len(rows)
