"""Rows of a benchmark for `benches/benchmarks.py`: from its own files, or from its replica."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.requests.rows import Row
from expunge.testing import replicas

FOLDERS = {
    "general": ".",  # each of its tests has a folder of its own
    "honesty": "wmdp_cyber",
    "pii": "pii_synthetic",
    "unpii": "unpii_sample",
    "wmdp": "wmdp_cyber",
}
"""Benchmark -> folder of its files under ``--data``, where it is not called like the benchmark."""

SETTINGS: dict[str, dict[str, Any]] = {"conceptvectors": {"trace": "search"}}
"""What a tiny model cannot do at the defaults: the traces given are layers of one of 32."""

Sets = dict[str, list[Row]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Rows of one split.

    Attributes:
        split: Which.
        sets: On what models are compared, all rows.
        splits: Every split of the card -> its rows by role and by set, or what is missing.
        real: Whether the rows come from the benchmark's own files.
        why: Why they do not.
    """

    split: str
    sets: Sets
    splits: Mapping[str, Any] = field(default_factory=dict)
    real: bool = True
    why: str = ""


def find(benchmark: Benchmark, data: Path | None, spare: Path) -> Found:
    """The rows of a benchmark.

    Args:
        benchmark: Which.
        data: Folder with one folder for each benchmark; None where there are no files.
        spare: Empty folder for the replica.

    Returns:
        The default split from the files, the first other one where that cannot be read, or the
        default split of the replica where none can.
    """
    if data is None:
        return _replica(benchmark, spare, "no data folder was given")
    folder = data / FOLDERS.get(benchmark.id, benchmark.id)
    if not folder.is_dir():
        return _replica(benchmark, spare, "the files are not in the data folder")
    read = {split: _read(benchmark, folder, split) for split in _splits(benchmark)}
    told = {split: _told(one, data) for split, one in read.items()}
    for split, one in read.items():
        if not isinstance(one, ExpungeError):
            return Found(split=split, sets=one[1], splits=told)
    return _replica(benchmark, spare, told[_splits(benchmark)[0]]["missing"], told)


def settings(benchmark: Benchmark) -> Any:
    """The defaults, or what a tiny model can do instead."""
    return benchmark.params(SETTINGS.get(benchmark.id, {}))


def sample(rows: Sequence[Any], most: int) -> list[Any]:
    """At most so many rows, evenly over all of them, since files are often sorted."""
    if len(rows) <= most:
        return list(rows)
    return [rows[at * len(rows) // most] for at in range(most)]


def _splits(benchmark: Benchmark) -> list[str]:
    """Splits of the card, the default one first."""
    card = benchmark.module.CARD
    first = card["default_split"]
    return [first, *(split for split in card["splits"] if split != first)]


def _replica(
    benchmark: Benchmark, folder: Path, why: str, splits: Mapping[str, Any] | None = None
) -> Found:
    replicas.write(benchmark.id, folder)
    split = _splits(benchmark)[0]
    one = _read(benchmark, folder, split)
    if isinstance(one, ExpungeError):
        raise one
    return Found(split=split, sets=one[1], splits=splits or {}, real=False, why=why)


def _read(benchmark: Benchmark, folder: Path, split: str) -> tuple[Sets, Sets] | ExpungeError:
    """Rows by role and rows by set, at the defaults; the error where they cannot be read."""
    module, params = benchmark.module, settings(benchmark)
    try:
        return module.splits(folder, split, params), module.sets(folder, split, params)
    except ExpungeError as error:
        return error


def _told(one: tuple[Sets, Sets] | ExpungeError, data: Path) -> dict[str, Any]:
    if isinstance(one, ExpungeError):
        return {"missing": one.found.replace(f"{data}/", "").rstrip(".")}
    roles, sets = ({name: len(rows) for name, rows in of.items()} for of in one)
    return {"roles": roles, "sets": sets}
