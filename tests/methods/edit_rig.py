"""The model of `expunge.testing.people`, edited: on disk, under a method, asked again."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from expunge.engine.change import Change, load_change
from expunge.engine.datasets import Datasets
from expunge.engine.run import forget
from expunge.engine.task import Task
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.people import REPLY, People, knowing, people

__all__ = [
    "LAST", "REPLY", "TEXT", "People", "datasets_of", "edited", "knowing", "original", "people",
    "refused", "said", "task_of",
]  # fmt: skip

TEXT = {"target": "text", "text": REPLY, "contexts": 0}
"""Parameters of an editor that is to make the model say so; it knows no texts to put in front."""

LAST = {"fact_token": "last", "layers": (1,)}
"""Where this model looks facts up."""


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
