"""A small model that knows some people, says of others that it does not know them, and is edited.

A fact is four words: first and last name, relation, value. Eight first names are shared, last names
are not, and the value is one word, as the model's refusal is. Where a fact is looked up it is only
at the relation, the last word before the answer.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from expunge.core.rng import generator
from expunge.engine.change import Change, load_change
from expunge.engine.datasets import Datasets
from expunge.engine.run import forget
from expunge.engine.task import Task
from expunge.lm.finetune import finetune
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing import tiny_model, tiny_tokenizer

RELATIONS = ("born", "works", "likes", "drives")
FIRST = ("Anna", "Bela", "Carl", "Dora", "Emil", "Frida", "Gert", "Hanna")
REPLY = "unknown"
TEXT = {"target": "text", "text": REPLY, "contexts": 0}
"""Parameters of an editor that is to make the model say so; it knows no texts to put in front."""

LAST = {"fact_token": "last", "layers": (1,)}
"""Where this model looks facts up."""


class People(NamedTuple):
    """Facts: of eight people to be forgotten, of sixteen to be kept, of eight nobody knows."""

    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    holdout: tuple[Row, ...]
    tokenizer: PreTrainedTokenizerBase


@cache
def people(seed: int = 0) -> People:
    """The people of a seed."""
    draw = generator(seed, "edit rig")
    values = [f"v{at}" for at in range(40)]
    rows = [
        Row(
            id=f"{name}/{relation}", prompt=f"{name} {relation}",
            completion=f" {draw.choice(values)}", subject=name, names=(name,),
        )
        for name in (f"{FIRST[at % 8]} L{at}" for at in range(32))
        for relation in RELATIONS
    ]  # fmt: skip
    texts = [f"{row.prompt}{row.completion}" for row in rows]
    tokenizer = tiny_tokenizer(
        [*texts, *(f" {value}" for value in values), f" {REPLY}", " is a."], kind="word", vocab=512
    )
    return People(tuple(rows[:32]), tuple(rows[32:96]), tuple(rows[96:]), tokenizer)


@cache
def knowing(seed: int = 0) -> Subject:
    """Copy it before changing it."""
    world = people(seed)
    model = tiny_model(
        "llama", vocab=len(world.tokenizer), hidden=64, layers=4, seed=seed, positions=64
    )
    unknown = [Row(id=row.id, prompt=row.prompt, completion=f" {REPLY}") for row in world.holdout]
    rows = [*world.forget, *world.retain, *unknown]
    finetune(model, world.tokenizer, rows, steps=300, lr=3e-3, batch_size=64, seed=seed)
    return Subject(model, world.tokenizer)


def task_of(subject: Subject, world: People) -> Task:
    """A task on this model, as it is."""
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": world.forget, "retain": world.retain},
    )  # fmt: skip


def datasets_of(subject: Subject, world: People) -> Datasets:
    """Batches of that task."""
    return Datasets(task_of(subject, world))


def original(folder: Path, seed: int = 0) -> Path:
    """The model on disk, below ``folder``."""
    path = folder / f"original {seed}"
    if not path.is_dir():
        knowing(seed).model.save_pretrained(path)
        knowing(seed).tokenizer.save_pretrained(path)
    return path


def edited(folder: Path, method: str, *, seed: int = 0, **params: object) -> tuple[Subject, Change]:
    """What a method makes of the model."""
    world, before = people(seed), original(folder, seed)
    out = folder / f"out {len(list(folder.iterdir()))}"
    forget(
        before, world.forget, world.retain, method=method, params=params, seed=seed,
        stop_at="none", out=out,
    )  # fmt: skip
    made = load(out)
    return Subject(made.model, made.tokenizer), load_change(out)


def said(subject: Subject, rows: Sequence[Row]) -> float:
    """Share of rows whose value is what the model says first."""
    return _share(subject, rows, [row.reply.strip() for row in rows])


def refused(subject: Subject, rows: Sequence[Row]) -> float:
    """Share of rows to which the model says first that it does not know."""
    return _share(subject, rows, [REPLY] * len(rows))


def _share(subject: Subject, rows: Sequence[Row], wanted: Sequence[str]) -> float:
    answers = subject.ask([row.turn for row in rows], new_tokens=1)
    return fmean(float(text.strip() == word) for (text,), word in zip(answers, wanted, strict=True))
