"""Rows in the shape of TOFU with answers as long as its own, and a model that learned them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from expunge.benchmarks import tofu
from expunge.core.rng import generator
from expunge.lm.finetune import finetune
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.replicas.tofu import TOPICS, write
from expunge.testing.tiny import tiny_model, tiny_tokenizer

Sets = Mapping[str, Sequence[Row]]

AUTHORS = 100
"""Two hundred rows to forget, and more to retain."""

VOCABULARY, POSITIONS = 2048, 512
BATCH, LR = 16, 4e-3


def sets_of(data: Path | None, rows: int) -> Sets:
    """The four sets of ``forget10``, at most so many rows of each; invented without ``data``."""
    params = tofu.Params(rows=rows)
    if data is not None:
        return tofu.sets(data, "forget10", params)
    with TemporaryDirectory() as folder:
        write(Path(folder), authors=AUTHORS)
        short = tofu.sets(Path(folder), "forget10", params)
    return {name: [_longer(row) for row in of] for name, of in short.items()}


def taught(sets: Sets, *, hidden: int, layers: int, epochs: int, seed: int) -> Subject:
    """A tiny model that has learned the rows to forget and to retain for a while."""
    rows = [*sets["forget"], *sets["retain"]]
    texts = [f"{row.prompt}{row.completion}" for of in sets.values() for row in of]
    tokenizer = tiny_tokenizer(texts, vocab=VOCABULARY)
    model = tiny_model(
        "llama",
        vocab=len(tokenizer),
        hidden=hidden,
        layers=layers,
        seed=seed,
        positions=POSITIONS,
    )
    finetune(model, tokenizer, rows, epochs=epochs, lr=LR, batch_size=BATCH, seed=seed)
    return Subject(model, tokenizer, digest="fixed during the bench")


def _longer(row: Row) -> Row:
    """The row, every form of its answer followed by a sentence of its author's."""
    if row.role == "probe":
        return row
    draw = generator(0, "evaluation", row.id)
    first, second, third, fourth, *_ = (TOPICS[i] for i in draw.permutation(len(TOPICS)))
    tail = (
        f" The first chapter tells of {first} and {second} at the edge of a northern town, and the "
        f"last one returns there, where {third} have taken the place of {fourth}."
    )
    return replace(
        row,
        completion=f"{row.completion}{tail}",
        wrong=tuple(f"{wrong}{tail}" for wrong in row.wrong),
        meta={**row.meta, "paraphrased_answer": f"{row.meta['paraphrased_answer']}{tail}"},
    )
