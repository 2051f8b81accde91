"""A small model that knows some people, says of others that it does not know them, and is edited.

What editors are to make it say is thus something it can say.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean

from expunge.engine.change import Change, load_change
from expunge.engine.datasets import Datasets
from expunge.engine.run import forget
from expunge.engine.task import Task
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.micro import REPLY, Micro, every_wording, micro_world, taught_rows
from expunge.text.match import contains

TEXT = {"target": "text", "text": REPLY}
"""Parameters of an editor that is to make the model say so."""


@cache
def people(seed: int = 0) -> Micro:
    """Four people to be forgotten, four to be kept, four nobody knows."""
    return micro_world(4, seed=seed)


@cache
def knowing(seed: int = 0) -> Subject:
    """Copy it before changing it."""
    world = people(seed)
    unknown = [replace(row, completion=f" {REPLY}") for row in every_wording(world.holdout)]
    known = [*every_wording(world.forget), *every_wording(world.retain)]
    return taught_rows(world, [*known, *unknown], seed=seed)


def task_of(subject: Subject, world: Micro, **more: object) -> Task:
    """A task on this model, as it is."""
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": world.forget, "retain": world.retain}, **more,
    )  # fmt: skip


def datasets_of(subject: Subject, world: Micro) -> Datasets:
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
    """Share of rows whose value the model says."""
    answers = subject.ask([row.turn for row in rows], new_tokens=10)
    return fmean(
        float(contains(text, row.forms)) for (text,), row in zip(answers, rows, strict=True)
    )


def refused(subject: Subject, rows: Sequence[Row]) -> float:
    """Share of rows to which the model says that it does not know."""
    answers = subject.ask([row.turn for row in rows], new_tokens=10)
    return fmean(float(text.strip() == REPLY) for (text,) in answers)
