"""Where methods are compared: the embedded testbed, and TOFU cut to 20 authors."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from expunge.benchmarks import tofu
from expunge.benchmarks.tofu.files import read_records
from expunge.lab import testbed
from expunge.lab.tofu_tiny import KEPT_AUTHORS, SPLIT, build_tofu
from expunge.requests.rows import Row

ROWS_PER_AUTHOR = 20
NEVER_TAUGHT = 40
"""Rows of authors that were cut away, as hold-out rows."""
TOFU = "EXPUNGE_TOFU"
"""Environment variable: folder with the upstream files; the models are built beside the record."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Two models and the rows that tell them apart.

    Attributes:
        name: ``testbed`` or ``tofu``.
        rows: Role -> rows for methods.
        asked: Role -> the same with paraphrases and wrong answers, for metrics.
        folders: ``original``, ``reference`` and, where there is one, ``base``.
        new_tokens: Longest answer.
        can_answer: Whether asking means something beyond the rows' own wording.
    """

    name: str
    rows: Mapping[str, Sequence[Row]]
    asked: Mapping[str, Sequence[Row]]
    folders: Mapping[str, Path]
    new_tokens: int
    can_answer: bool = True


@cache
def site(name: str) -> Site:
    """``testbed`` or ``tofu``."""
    return _testbed() if name == "testbed" else _tofu()


def _testbed() -> Site:
    rows = {role: testbed.rows(role) for role in testbed.ROLES}
    folders = {name: testbed.folder(name) for name in testbed.MODELS}
    return Site(name="testbed", rows=rows, asked=rows, folders=folders, new_tokens=32)


def _tofu() -> Site:
    upstream, models = (Path(part) for part in os.environ[TOFU].split(os.pathsep))
    if not (models / "original").is_dir():
        build_tofu(upstream, models)
    params = tofu.Params()
    rows = tofu.splits(models / "data", SPLIT, params)
    sets = tofu.sets(models / "data", SPLIT, params)
    cut = read_records(upstream / "retain99.json")[KEPT_AUTHORS * ROWS_PER_AUTHOR :]
    plain = [
        Row(
            id=f"never-{number}",
            role="holdout",
            prompt=f"Question: {record['question']}\nAnswer:",
            completion=f" {record['answer']}",
        )
        for number, record in enumerate(cut[:NEVER_TAUGHT])
    ]
    return Site(
        name="tofu",
        rows={**rows, "neighbour": [], "holdout": plain},
        asked={"forget": sets["forget"], "retain": rows["retain"], "holdout": plain},
        folders={name: models / name for name in ("original", "reference")},
        new_tokens=110,
        can_answer=False,
    )
