"""Rows in JSON lines files: read without trust, written so that any reader can read them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from expunge.core.atomic import replacing
from expunge.core.errors import ExpungeError, raise_all
from expunge.core.limits import LINE_BYTES
from expunge.data.strict_json import parse_line
from expunge.requests.rows import Row

MOST_PROBLEMS = 50
"""Reading stops when so many problems have been found."""

_MARK = b"\xef\xbb\xbf"
_SEPARATORS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def read_rows(path: str | Path, role: str | None = None) -> list[Row]:
    """Read the rows of a file.

    One JSON object a line, in UTF-8. Lines end at a line feed and nowhere else; empty lines are
    skipped, and so is a byte order mark at the very beginning. The file is streamed: no more
    than one line of at most `LINE_BYTES` is held besides the rows.

    Args:
        path: The file.
        role: The role of all its rows; None leaves each row its own.

    Raises:
        ExpungeError: ``E-DATA-001`` to ``E-DATA-010`` or ``E-DATA-012``. Problems are collected,
            each with file, line and column, up to `MOST_PROBLEMS`; a line over the limit ends
            the reading.
    """
    rows: list[Row] = []
    problems: list[ExpungeError] = []
    lines: dict[str, int] = {}
    for number, line in lines_of(path, problems):
        where = f"{path}:{number}"
        try:
            row = Row.parse(parse_line(line, where), role=role, where=where)
        except ExpungeError as error:
            problems += getattr(error, "problems", (error,))
        else:
            rows.append(row)
            if lines.setdefault(row.id, number) != number:
                problems.append(_twice(row.id, where, lines[row.id]))
        if len(problems) >= MOST_PROBLEMS:
            break
    raise_all(problems[:MOST_PROBLEMS])
    if not rows:
        raise ExpungeError(
            "E-DATA-005", f"{path} has no rows.", "one JSON object a line.", "Give it some rows."
        )
    return rows


def lines_of(
    path: str | Path, problems: list[ExpungeError] | None = None
) -> Iterator[tuple[int, bytes]]:
    """Lines of a file with their numbers; empty ones and a byte order mark are skipped.

    Args:
        path: The file; no more than one line of at most `LINE_BYTES` is held.
        problems: Gets what ends the reading, a line over the limit; None raises it.

    Raises:
        ExpungeError: ``E-DATA-001`` when the file cannot be read, ``E-DATA-009``.
    """
    with _opened(path) as handle:
        for number, line in _lines(handle):
            if line is not None:
                yield number, line
            elif problems is None:
                raise _too_long(f"{path}:{number}")
            else:
                problems.append(_too_long(f"{path}:{number}"))


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows, one JSON object a line, replacing the file.

    Separators that some readers take for line ends are escaped.
    """
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        for row in rows:
            line = json.dumps(row.as_dict(), ensure_ascii=False, allow_nan=False)
            handle.write(line.translate(_SEPARATORS).encode() + b"\n")


def _opened(path: str | Path) -> IO[bytes]:
    try:
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise ExpungeError(
            "E-DATA-001",
            f"{path} cannot be read: {error.strerror}.",
            "a file of JSON lines.",
            "Check the path.",
        ) from error


def _lines(handle: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers, empty ones skipped; None for a line over the limit, as the last.

    Such a line is not read to its end.
    """
    ends = iter(lambda: handle.readline(LINE_BYTES + 1), b"")
    for number, line in enumerate(ends, start=1):
        if number == 1:
            line = line.removeprefix(_MARK)  # noqa: PLW2901
        if len(line) > LINE_BYTES and not line.endswith(b"\n"):
            yield number, None
            return
        if not line.isspace() and line:
            yield number, line


def _too_long(where: str) -> ExpungeError:
    return ExpungeError(
        "E-DATA-009",
        f"{where}:{LINE_BYTES + 1}: a line longer than {LINE_BYTES} bytes; reading stopped.",
        f"lines of at most {LINE_BYTES} bytes, one row each.",
        "Cut the text into several rows, or check that the file is JSON lines.",
    )


def _twice(name: str, where: str, first: int) -> ExpungeError:
    return ExpungeError(
        "E-DATA-007",
        f"{where}: the id {name[:60]!r} stands on line {first} already.",
        "an id of its own for every row.",
        "Rename one of them, or leave the ids out.",
    )
