"""The files that runs leave behind, read as if strangers had written them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.data.upstream import text_of

AUDIT, BENCH, CHANGE = "audit.json", "bench.json", "change.json"
"""File -> what a folder that holds it was written by."""


Kind = TypeVar("Kind", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)


class Stored(_Part):
    """One number as ``bench.json`` holds it."""

    mean: float | None
    per_row: dict[str, float] = Field(default_factory=dict)
    beside: dict[str, dict[str, float]] = Field(default_factory=dict)
    interval: tuple[float, float] | None = None
    seed: int | None = None
    note: str = ""


class Summary(_Part):
    """What one model reached on a benchmark."""

    values: dict[str, Stored]


class Failure(_Part):
    """Why a run failed."""

    found: str


class Line(_Part):
    """One model of a benchmark."""

    name: str
    method: str | None = None
    seed: int | None = None
    failed: Failure | None = None
    summary: Summary | None = None


class Bench(_Part):
    """The content of ``bench.json``."""

    format: Literal["unlearning-bench/1"]
    benchmark: str
    version: int | str
    split: str
    params: dict[str, Any]
    lines: list[Line]


class _Rows(_Part):
    digest: str
    rows: int


class _Digest(_Part):
    digest: str


class _Levels(_Part):
    forget_nll: float | None = None
    retain_nll: float | None = None
    utility_drop: float | None = None


class _Reached(_Levels):
    before: _Levels | None = None


class Manifest(_Part):
    """The content of ``change.json`` as far as it is compared."""

    format: Literal["unlearning-change/1"]
    method: str
    seed: int = 0
    params: dict[str, Any] = Field(default_factory=dict)
    wrappers: list[Any] = Field(default_factory=list)
    data: dict[str, _Rows | None] = Field(default_factory=dict)
    parent: _Digest
    result: _Digest
    summary: _Reached = Field(default_factory=_Reached)

    @property
    def key(self) -> str:
        """Equal for changes that differ in nothing but the seed."""
        made = {"method": self.method, "params": self.params, "wrappers": self.wrappers}
        rows = {role: of and of.digest for role, of in self.data.items()}
        return digest({**made, "parent": self.parent.digest, "rows": rows})


def read_bench(path: Path) -> Bench:
    """``bench.json``; see `read_object` for the errors."""
    return _checked(Bench, path)


def read_change(path: Path) -> Manifest:
    """``change.json``; see `read_object` for the errors."""
    return _checked(Manifest, path)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        ExpungeError: E-DATA-001, E-DATA-002 for a file that is cut or holds something else,
            E-DATA-008 for numbers that JSON does not allow, E-DATA-009, E-DATA-010.
    """
    try:
        found = json.loads(text_of(path), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)[:200]) from error
    if not isinstance(found, Mapping):
        raise _unreadable(path, f"a {type(found).__name__}")
    return dict(found)


def _checked(kind: type[Kind], path: Path) -> Kind:
    try:
        return kind.model_validate(read_object(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole value"
        raise ExpungeError(
            "E-DATA-003",
            f"{path} does not fit its format at {place}: {first['msg']}.",
            "a file as this version of expunge writes it.",
            "Give the same command as then again; finished work is not repeated.",
        ) from error


def _no_number(token: str) -> float:
    raise ExpungeError(
        "E-DATA-008",
        f"The number {token} in a result.",
        "numbers as JSON allows them.",
        "Make the run again.",
    )


def _unreadable(path: Path, found: str) -> ExpungeError:
    return ExpungeError(
        "E-DATA-002",
        f"{path} cannot be read: {found}.",
        "one complete JSON object.",
        "Give the command that wrote it again; finished work is not repeated.",
    )
