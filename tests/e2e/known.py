"""A small model that knows the rows of a small world, for end-to-end tests."""

from functools import cache
from pathlib import Path

from expunge.lm.subject import Subject
from expunge.testing.micro import Micro, micro_world, taught


@cache
def rows() -> Micro:
    """Eight people of each role."""
    return micro_world(people=8)


@cache
def knowing(epochs: int = 25) -> Subject:
    """A model that was taught forget and retain rows."""
    return taught(rows(), [*rows().forget, *rows().retain], epochs=epochs, hidden=48, layers=2)


def saved(subject: Subject, folder: Path) -> Path:
    """The model as a folder."""
    path = folder / "original"
    subject.model.save_pretrained(path)
    subject.tokenizer.save_pretrained(path)
    return path
