"""A stream of requests to forget: one JSON object a line, read without trust.

A line is an object with ``forget``: a list of rows, or the name of a file of rows beside the
stream. It may have ``id``, ``retain`` (rows that must be kept from this request on), ``ground``,
``received``, ``deadline``, ``subject`` and ``meta``. A line that is itself a row is a request to
forget that row.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError, Problems, nearest, raise_all
from expunge.core.paths import inside
from expunge.data.jsonl import MOST_PROBLEMS, lines_of, read_rows
from expunge.data.strict_json import parse_line
from expunge.requests.rows import Row

FIELDS = ("id", "forget", "retain", "ground", "received", "deadline", "subject", "meta")
CONTENT = ("text", "prompt", "messages")


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        id: What it is called; its number in the stream where none is given.
        forget: Rows to be forgotten.
        retain: Rows that must be kept, beside those given for all requests.
        about: The other fields, as they stand there.
    """

    id: str
    forget: tuple[Row, ...]
    retain: tuple[Row, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


def read_requests(path: str | Path) -> list[Request]:
    """Read a stream of requests, in order.

    Args:
        path: The file.

    Raises:
        ExpungeError: ``E-DATA-001`` to ``E-DATA-012``, each with file and line, all at once.
    """
    path = Path(path)
    requests: list[Request] = []
    problems: list[ExpungeError] = []
    lines: dict[str, int] = {}
    for number, line in lines_of(path):
        where = f"{path}:{number}"
        try:
            request = _request(parse_line(line, where), where, path.parent, len(requests) + 1)
        except Problems as several:
            problems += several.problems
        except ExpungeError as one:
            problems.append(one)
        else:
            requests.append(request)
            if lines.setdefault(request.id, number) != number:
                problems.append(_twice(request.id, where, lines[request.id]))
        if len(problems) >= MOST_PROBLEMS:
            break
    raise_all(problems[:MOST_PROBLEMS])
    if not requests:
        raise ExpungeError(
            "E-DATA-005",
            f"{path} has no requests.",
            "one JSON object a line, with the rows to forget.",
            'Write {"id": "...", "forget": [...]} on a line of its own for each request.',
        )
    return requests


def _request(value: Any, where: str, folder: Path, number: int) -> Request:
    if isinstance(value, Mapping) and "forget" not in value and any(k in value for k in CONTENT):
        row = Row.parse(value, role="forget", where=where)
        return Request(row.id if "id" in value else f"{number:04d}", (row,))
    raise_all(list(_shape(value, where)))
    found = {
        role: tuple(_rows(value[role], role, where, folder))
        for role in ("forget", "retain")
        if role in value
    }
    if not found["forget"]:
        raise ExpungeError(
            "E-DATA-005", f"{where}: no rows to forget.", "at least one row.", "Give it some rows."
        )
    about = {name: value[name] for name in FIELDS[3:] if name in value}
    return Request(str(value.get("id", f"{number:04d}")), **found, about=about)


def _shape(value: Any, where: str) -> Iterator[ExpungeError]:
    if not isinstance(value, Mapping) or "forget" not in value:
        yield ExpungeError(
            "E-DATA-003",
            f"{where}: not a request.",
            "an object with 'forget' (a list of rows, or the name of a file), or a row.",
            'Write {"id": "...", "forget": [...]}.',
        )
        return
    for name in value:
        if name not in FIELDS:
            yield ExpungeError(
                "E-DATA-003",
                f"{where}: a request has no field {name!r}.",
                "one of " + ", ".join(FIELDS) + ".",
                nearest(name, FIELDS),
            )
    if not isinstance(value.get("id", ""), str | int) or value.get("id") == "":
        yield ExpungeError(
            "E-DATA-003", f"{where}: id is not a name.", "text.", "Name it, or leave it out."
        )


def _rows(value: Any, role: str, where: str, folder: Path) -> list[Row]:
    if isinstance(value, str):
        return read_rows(inside(folder, value), role)
    if not isinstance(value, list):
        raise ExpungeError(
            "E-DATA-003",
            f"{where}: {role} is neither a list nor a name.",
            "a list of rows, or the name of a file of rows beside the stream.",
            "Write the rows into a list.",
        )
    problems: list[ExpungeError] = []
    rows: list[Row] = []
    for at, one in enumerate(value, start=1):
        try:
            rows.append(Row.parse(one, role=role, where=f"{where}: {role} {at}"))
        except Problems as several:
            problems += several.problems
        except ExpungeError as error:
            problems.append(error)
    raise_all(problems)
    return rows


def _twice(name: str, where: str, first: int) -> ExpungeError:
    return ExpungeError(
        "E-DATA-007",
        f"{where}: the id {name[:60]!r} stands on line {first} already.",
        "an id of its own for every request.",
        "Rename one of them, or leave the ids out.",
    )
