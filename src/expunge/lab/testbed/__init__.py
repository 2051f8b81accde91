"""The embedded testbed: a small invented world and three models of it, shipped with the package.

*base* knows twenty people and 80 real facts, *original* has learned forty more people, *reference*
the same without the eight to be forgotten. Demo, tests and studies start from them; `build` makes
them again from a seed. Importing this loads no torch.

Example:
    >>> from expunge.lab import testbed
    >>> len(testbed.rows("forget")), len(testbed.rows("holdout"))
    (80, 80)
"""

from collections.abc import Sequence
from functools import lru_cache
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from expunge.core.errors import ExpungeError, nearest
from expunge.lab.testbed.phrases import PEOPLE as wordings
from expunge.lab.testbed.phrases import Wording
from expunge.lab.testbed.world import Person, facts, own_row, people
from expunge.requests.rows import Row

if TYPE_CHECKING:
    from expunge.lm.subject import Subject

__all__ = [
    "MODELS",
    "ROLES",
    "WORLD_SEED",
    "Person",
    "Wording",
    "all_rows",
    "build",
    "expected",
    "folder",
    "known_rows",
    "person",
    "refuser_rows",
    "rows",
    "train_refuser",
    "wordings",
    "world_rows",
]

WORLD_SEED = 0
"""Seed of the shipped world; models are trained on it with seeds of their own."""

Role = Literal["forget", "retain", "neighbour", "holdout"]
Model = Literal["base", "original", "reference"]

ROLES: tuple[Role, ...] = ("forget", "retain", "neighbour", "holdout")
MODELS: tuple[Model, ...] = ("base", "original", "reference")

_ASSETS = Path(__file__).parent / "assets"


def rows(role: Role) -> list[Row]:
    """The rows of one role, each in its own wording.

    Args:
        role: ``forget`` and ``holdout`` have 80 rows, ``retain`` 270, ``neighbour`` 50.

    Raises:
        ExpungeError: ``E-USE-003`` for another role.
    """
    return list(_rows_of(_one_of(role, ROLES, "role")))


def known_rows() -> list[Row]:
    """The 200 rows of the people the base model already knows."""
    return list(_rows_of("known"))


def world_rows() -> list[Row]:
    """The 80 rows of real facts, with short answers."""
    return list(_rows_of("world"))


def all_rows() -> dict[str, list[Row]]:
    """All of them: role, ``known`` or ``world`` -> its rows."""
    return {role: rows(role) for role in ROLES} | {"known": known_rows(), "world": world_rows()}


def person(index: int) -> Person:
    """One of the eight people to be forgotten.

    Args:
        index: 0 to 7.
    """
    return [one for one in people(WORLD_SEED) if one.kind == "forget"][index]


def folder(name: Model) -> Path:
    """The folder of a shipped model, in Hugging Face layout.

    Raises:
        ExpungeError: ``E-USE-003`` for another name.
    """
    return _ASSETS / _one_of(name, MODELS, "model")


def expected() -> dict[str, Any]:
    """What was measured on the shipped models when they were built.

    Beside it stands, under ``other_seeds``, what a build with another training seed measured.
    """
    measured: dict[str, Any] = loads((_ASSETS / "expected.json").read_text(encoding="utf-8"))
    return measured


def build(out: str | Path, seed: int = 0) -> dict[str, Any]:
    """Train base, original and reference on the shipped world; some two CPU-minutes.

    Args:
        out: New or empty folder; gets one folder a model, the rows and ``expected.json``.
        seed: Decides initial weights, order of rows and what is rehearsed.

    Returns:
        The content of ``expected.json``.

    Raises:
        ExpungeError: ``E-USE-004`` when ``out`` holds something else.
    """
    from expunge.lab.testbed.training import build_all

    return build_all(Path(out), seed)


def refuser_rows(seed: int = 0) -> list[Row]:
    """The forget rows in all wordings, each answered by a refusal.

    Args:
        seed: Decides which refusal answers which question.
    """
    from expunge.lab.testbed.refuser import refusals

    return refusals(_rows_of("forget"), seed)


def train_refuser(original: "Subject | str | Path", out: str | Path, seed: int = 0) -> Path:
    """Make the contrast model, which refuses to tell what it still knows.

    Args:
        original: The model to start from, or its folder; it is not changed.
        out: New or empty folder for the refuser.
        seed: Decides refusals and order of rows.

    Returns:
        ``out``.

    Raises:
        ExpungeError: ``E-USE-004`` when ``out`` holds something else.
    """
    from expunge.lab.testbed.refuser import train

    return train(original, Path(out), seed)


@lru_cache(maxsize=8)
def _rows_of(kind: str) -> tuple[Row, ...]:
    return tuple(own_row(fact, WORLD_SEED) for fact in facts(WORLD_SEED) if fact.kind == kind)


def _one_of(name: str, known: Sequence[str], what: str) -> str:
    if name in known:
        return name
    raise ExpungeError(
        "E-USE-003",
        f"The testbed has no {what} {name!r}. {nearest(name, known)}",
        f"one of {', '.join(known)}.",
        "Correct the name.",
    )
