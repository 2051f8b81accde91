"""A stream of requests as it was asked for: read, checked, and laid out in folders and rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from expunge.core.errors import ExpungeError
from expunge.data.jsonl import read_rows
from expunge.data.requests import Request, read_requests
from expunge.engine.check import Report, check_forget, encode_roles, occupied
from expunge.engine.run import Rows
from expunge.engine.slots.sample import content_key
from expunge.lm.folder import inspect_folder
from expunge.requests.rows import Row, check_roles

RECORD = "stream.json"

Anchoring = Literal["original", "previous"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """A stream of requests, read.

    Attributes:
        model: The model before the first request.
        requests: In order.
        kept: Role -> rows to be kept by every request (``retain``, ``neighbour``, ``holdout``).
        anchor: What losses compare with: the model before the first request, or the one before
            this request.
        options: The other arguments of `expunge.engine.run.forget`.
        out: Folder of the stream.
    """

    model: Path
    requests: Sequence[Request]
    kept: Mapping[str, Sequence[Row]]
    anchor: Anchoring
    options: Mapping[str, Any]
    out: Path

    def folder(self, place: int) -> Path:
        """Where the change of a request lies, counted from 0."""
        return self.out / f"{place + 1:04d}"

    def roles(self, place: int) -> dict[str, Any]:
        """The rows of a request; nothing asked to be forgotten so far is among the kept ones."""
        asked = self.requests[: place + 1]
        gone = {content_key(row) for one in asked for row in one.forget}
        taken = {row.id for row in self.requests[place].forget}
        given = {role: list(rows) for role, rows in self.kept.items()}
        given["retain"] = [*given.get("retain", ()), *(r for one in asked for r in one.retain)]
        stay = {
            role: [row for row in _once(rows) if content_key(row) not in gone]
            for role, rows in given.items()
        }
        renamed = {
            role: [row if row.id not in taken else _renamed(row, role) for row in rows]
            for role, rows in stay.items()
        }
        return {"forget": list(_once(self.requests[place].forget)), **renamed}


def read_stream(
    model: str | Path,
    stream: str | Path,
    *,
    out: str | Path,
    anchor: Anchoring = "previous",
    retain: Rows | None = None,
    neighbour: Rows | None = None,
    holdout: Rows | None = None,
    **options: Any,
) -> tuple[Stream | None, Report]:
    """Read a stream and find everything wrong with it, before any weights load.

    Args:
        model: The model before the first request.
        stream: File of requests (`expunge.data.requests`).
        out: Folder of the stream.
        anchor: ``original`` or ``previous``: what losses compare with.
        retain: Rows to be kept, for all requests; what is asked to be forgotten leaves them.
        neighbour: Rows close to the forgotten ones, to be kept.
        holdout: Rows like the forgotten ones that the model never saw.
        **options: The other arguments of `expunge.engine.run.forget`.

    Returns:
        The stream, None when anything is wrong, and the report of its first request.
    """
    report = Report()
    requests = report.attempt(lambda: read_requests(stream))
    given = {"retain": retain, "neighbour": neighbour, "holdout": holdout}
    kept: dict[str, Sequence[Row]] = {}
    for role, source in given.items():
        if isinstance(source, str | Path):
            found = report.attempt(lambda s=source, r=role: read_rows(s, r))  # type: ignore[misc]
            kept[role] = found or []
        elif source is not None:
            kept[role] = source
    if anchor not in ("original", "previous"):
        report.problems.append(
            ExpungeError(
                "E-USE-003", f"--anchor {anchor}.", "original or previous.", "Name one of them."
            )
        )
    report.problems += list(_occupied(Path(out)))
    if report.problems or requests is None:
        return None, report
    read = Stream(
        model=Path(model), requests=requests, kept=kept, anchor=anchor, options=options,
        out=Path(out),
    )  # fmt: skip
    report = check_forget(model, **read.roles(0), **options, out=read.folder(0))
    report.problems += list(_later_problems(read))
    for name in ("seconds", "disk_bytes"):
        if name in report.estimate:  # each request may take as long as the first
            report.estimate[name] *= len(requests)
    report.resolved["requests"] = len(requests)
    return (None if report.problems else read), report


def _occupied(out: Path) -> Iterator[ExpungeError]:
    if (out / RECORD).is_file() or (out / "0001").is_dir():
        return
    problem = occupied(out)
    if problem is not None:
        yield problem


def _later_problems(stream: Stream) -> Iterator[ExpungeError]:
    """Of the requests behind the first: roles that clash, rows that do not fit the model."""
    folder = inspect_folder(stream.model)
    for place in range(1, len(stream.requests)):
        report = Report(problems=list(check_roles(**stream.roles(place))))
        encode_roles(report, folder, {"forget": stream.requests[place].forget})
        for problem in report.problems:
            yield ExpungeError(
                problem.code,
                f"request {stream.requests[place].id}: {problem.found}",
                problem.expected,
                problem.next,
            )


def _once(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows that say the same as an earlier one are left out."""
    seen: set[str] = set()
    for row in rows:
        if (key := content_key(row)) not in seen:
            seen.add(key)
            yield row


def _renamed(row: Row, role: str) -> Row:
    return replace(row, id=f"{role}/{row.id}")
