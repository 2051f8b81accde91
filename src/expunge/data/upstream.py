"""Files of benchmarks as their authors publish them: lists of records, read without trust.

JSON Lines, one JSON list (or an object with one under a key), or CSV. Suffixes lie, so a file is
taken for what its first character says. Everything wrong with a file is reported at once, each
problem with its line; a record that stands twice is one.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError, raise_all
from expunge.core.limits import MIB
from expunge.data.strict_json import parse_line

Record = Mapping[str, Any]
Columns = Mapping[str, type | tuple[type, ...]]
"""Column -> the type its values must have."""

FILE_BYTES = 256 * MIB
"""Largest file that is read whole."""
MOST_PROBLEMS = 50


def records(
    path: str | Path,
    columns: Columns | Iterable[str] = (),
    *,
    under: str | None = None,
    header: Sequence[str] | None = None,
    unique: Sequence[str] | None = None,
) -> list[Record]:
    """The records of one file.

    Args:
        path: JSON Lines, one JSON list, or CSV.
        columns: What each record must have, as text where no type is given.
        under: Key of the list, for a JSON object that holds it.
        header: Names of the columns of a CSV file without a first line that says them.
        unique: Columns that together name a record: one that stands twice is an error.

    Raises:
        ExpungeError: E-DATA-001 to E-DATA-010 for files that are missing or broken; all problems
            at once.
    """
    path = Path(path)
    text = text_of(path)
    wanted = columns if isinstance(columns, Mapping) else dict.fromkeys(columns, str)
    found: list[Record] = []
    problems: list[ExpungeError] = []
    for where, record in _parsed(path, text, under, header, problems):
        problems += _lacking(record, wanted, where)
        if isinstance(record, Mapping):
            found.append(record)
        if len(problems) >= MOST_PROBLEMS:
            break
    if unique is not None and not problems:
        problems += _twice(path, found, unique)
    raise_all(problems[:MOST_PROBLEMS])
    if not found:
        raise ExpungeError(
            "E-DATA-005", f"{path} has no records.", "at least one.", "Fetch the file again."
        )
    return found


def record_id(*parts: Any) -> str:
    """What names a row: its question together with its answer, never its place in a file."""
    return digest(list(parts))[:16]


def text_of(path: Path) -> str:
    """All text of one file, within limits.

    Raises:
        ExpungeError: E-DATA-001, E-DATA-009, E-DATA-010.
    """
    if not path.is_file():
        raise ExpungeError(
            "E-DATA-001",
            f"{path} is not there.",
            "the files of the benchmark, as their authors publish them, in one folder.",
            "Point --data to the folder that holds it.",
        )
    if path.stat().st_size > FILE_BYTES:
        raise ExpungeError(
            "E-DATA-009", f"{path} is too large.", f"at most {FILE_BYTES} bytes.", "Check the file."
        )
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExpungeError(
            "E-DATA-010", f"{path}: {error}.", "text in UTF-8.", "Fetch the file again."
        ) from error


def _parsed(
    path: Path,
    text: str,
    under: str | None,
    header: Sequence[str] | None,
    problems: list[ExpungeError],
) -> Iterator[tuple[str, Any]]:
    """Records with the place they stand at; what cannot be parsed goes to ``problems``."""
    if path.suffix == ".csv":
        yield from _csv(path, text, header)
    elif under is not None or text.lstrip()[:1] == "[":
        yield from _whole(path, text, under)
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    where = f"{path.name}:{number}"
                    yield where, parse_line(line.encode(), where)
                except ExpungeError as problem:
                    problems.append(problem)


def _csv(path: Path, text: str, header: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    try:
        for number, record in enumerate(csv.DictReader(io.StringIO(text), header, strict=True), 1):
            yield f"{path.name}, record {number}", record
    except csv.Error as error:
        raise ExpungeError(
            "E-DATA-002", f"{path}: {error}.", "CSV.", "Fetch the file again."
        ) from error


def _whole(path: Path, text: str, under: str | None) -> Iterator[tuple[str, Any]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExpungeError(
            "E-DATA-002", f"{path}: {error}.", "JSON.", "Fetch the file again."
        ) from error
    if under is not None:
        content = content.get(under) if isinstance(content, Mapping) else None
    if not isinstance(content, list):
        raise ExpungeError(
            "E-DATA-003",
            f"{path}: no list{f' under {under!r}' if under else ''}.",
            "a list of records.",
            "Use the upstream file unchanged.",
        )
    yield from ((f"{path.name}, record {i}", record) for i, record in enumerate(content, 1))


def _lacking(record: Any, wanted: Columns, where: str) -> list[ExpungeError]:
    if isinstance(record, Mapping):
        wrong = [name for name, kind in wanted.items() if not isinstance(record.get(name), kind)]
    else:
        wrong = ["not an object"]
    return [
        ExpungeError(
            "E-DATA-003",
            f"{where}: {name if name == 'not an object' else f'no {name!r}, or of another type'}.",
            f"the columns {', '.join(wanted)}.",
            "Use the upstream files unchanged.",
        )
        for name in wrong
    ]


def _twice(path: Path, found: Sequence[Record], unique: Sequence[str]) -> list[ExpungeError]:
    seen: dict[str, int] = {}
    problems = []
    for number, record in enumerate(found, 1):
        first = seen.setdefault(digest([record.get(name) for name in unique]), number)
        if first != number:
            named = ", ".join(f"{name} {record.get(name)!r}" for name in unique)
            problems.append(
                ExpungeError(
                    "E-DATA-007",
                    f"{path.name}: record {number} repeats record {first}: {named[:200]}.",
                    f"every {' and '.join(unique)} once.",
                    "Fetch the file again.",
                )
            )
    return problems
