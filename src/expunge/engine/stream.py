"""A stream of requests: each carried out on what the one before it left, and all kept in view.

Every request is one run of `expunge.engine.run.forget` in a folder of its own, ``0001``, ``0002``
and so on, so each change can be opened, audited and taken back by itself. After each of them the
rows of all requests and the rows to be kept are measured. ``stream.json`` in the stream's folder
has the measurements; a stream that was interrupted goes on where it stopped, and one whose file has
grown goes on with the new requests.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from expunge.core.atomic import write_json
from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError, raise_all
from expunge.core.events import note, progress
from expunge.core.paths import locked
from expunge.engine.change import read_manifest
from expunge.engine.datasets import Datasets
from expunge.engine.measure import level
from expunge.engine.part_files import served
from expunge.engine.requested import RECORD, Stream, read_stream
from expunge.engine.run import forget
from expunge.engine.task import Task
from expunge.lm.folder import inspect_folder
from expunge.lm.hooks import evaluating
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

FORMAT = "unlearning-stream/1"
UNCHANGED = "E-RUN-001"
"""A request that finds nothing to do: the stream goes on with the model as it is."""


@dataclass(frozen=True, slots=True)
class Known:
    """How well a model knows some rows.

    Attributes:
        nll: Token-mean negative log-likelihood, nats.
        accuracy: Share of tokens that are its first choice.
    """

    nll: float
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class After:
    """What a model knows after a request.

    Attributes:
        kept: Role -> how well the rows to be kept are known.
        requests: For each request of the stream, earlier and later ones, its forget rows.
    """

    kept: Mapping[str, Known]
    requests: Sequence[Known]


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """One request carried out.

    Attributes:
        id: Of the request.
        rows: Number of its forget rows.
        status: ``done``, or ``unchanged`` where there was nothing to do.
        out: Folder of its change; of the last change before it where nothing was to be done.
        about: What else the request says.
        summary: What ``expunge forget --json`` prints of it; of ``unchanged`` why.
        after: What the model knows then.
        digest: Of everything this depends on; another one makes it be done anew.
    """

    id: str
    rows: int
    status: Literal["done", "unchanged"]
    out: str
    about: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""


def forget_stream(model: str | Path, stream: str | Path, **given: Any) -> dict[str, Any]:
    """Carry out the requests of a stream in order, one change each.

    Args:
        model: The model before the first request.
        stream: File of requests.
        **given: As `read_stream`.

    Returns:
        The record that is also in ``stream.json``: ``format``, ``anchor``, ``method``, ``original``
        (what the model knew before), ``requests`` (each as `Done`), ``out`` and ``model`` (the
        folder of the last change).

    Raises:
        ExpungeError: For bad input, all problems at once, before weights load; and when a request
            fails for another reason than that there was nothing to do. What was done stays.
    """
    read, report = read_stream(model, stream, **given)
    raise_all(report.problems)
    assert read is not None  # noqa: S101
    read.out.mkdir(parents=True, exist_ok=True)
    with locked(read.out):
        return _Run(read).through()


class _Run:
    """A stream under way."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.known = _read_record(stream.out)
        self.model, self.carry = stream.model, dict[str, Any]()

    def through(self) -> dict[str, Any]:
        """All requests, from the first that is not done."""
        requests = self.stream.requests
        record: dict[str, Any] = {
            "format": FORMAT,
            "out": str(self.stream.out),
            "anchor": self.stream.anchor,
            "method": self.stream.options.get("method", "npo"),
            "original": self._original(),
            "requests": [],
        }
        with progress("stream", len(requests)) as bar:
            for place, request in enumerate(requests):
                bar.advance(0, text=f"request {request.id}")
                done = self._done(place) or self._carried_out(place)
                record["requests"].append(asdict(done))
                record["model"] = str(self.model)
                write_json(self.stream.out / RECORD, self._kept(record))
                bar.advance(1, text=_words(done))
        return record

    def _kept(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record with what is known of later requests from an earlier run."""
        behind = self.known.get("requests", [])[len(record["requests"]) :]
        return {**record, "requests": [*record["requests"], *behind]}

    def _original(self) -> dict[str, Any]:
        key = self._digest(-1)
        known = self.known.get("original", {})
        return known if known.get("digest") == key else {**self._after(), "digest": key}

    def _done(self, place: int) -> Done | None:
        """A request that an earlier run has carried out, if nothing it depends on has changed."""
        known = self.known.get("requests", [])
        if place >= len(known) or known[place]["digest"] != self._digest(place):
            return None
        found = Done(**known[place])
        if found.status == "done":
            self._forget(place)  # finds it finished, its hashes checked
            self._go_on(place)
        return found

    def _carried_out(self, place: int) -> Done:
        request, folder = self.stream.requests[place], self.stream.folder(place)
        key = self._digest(place)
        status: Literal["done", "unchanged"] = "done"
        try:
            summary = self._forget(place)
            self._go_on(place)
        except ExpungeError as error:
            if error.code != UNCHANGED:
                raise
            note(f"Request {request.id}: nothing to do. {error.found}")
            status, summary = "unchanged", {"why": error.found}
            shutil.rmtree(folder, ignore_errors=True)
        return Done(
            id=request.id, rows=len(request.forget), status=status, out=str(self.model),
            about=request.about, summary=summary, after=self._after(), digest=key,
        )  # fmt: skip

    def _forget(self, place: int) -> dict[str, Any]:
        anchored = self.stream.anchor == "original" and self.model != self.stream.model
        return forget(
            self.model,
            **self.stream.roles(place),
            **self.stream.options,
            out=self.stream.folder(place),
            anchor=self.stream.model if anchored else None,
            carry=self.carry,
        )

    def _go_on(self, place: int) -> None:
        """The next request starts from what this one left."""
        self.model = self.stream.folder(place)
        manifest = read_manifest(self.model) or {}
        self.carry = dict(manifest.get("carry", {}))

    def _digest(self, place: int) -> str:
        """Of what a request's numbers depend on beside the model: its rows, and what is measured.

        Rows of requests that were added to the file later are measured anew only from there on.
        """
        stream = self.stream
        asked = [[row.as_dict() for row in one.forget] for one in stream.requests[: place + 1]]
        kept = {role: [row.as_dict() for row in rows] for role, rows in stream.kept.items()}
        options = {name: repr(value) for name, value in sorted(stream.options.items())}
        return digest(
            {"asked": asked, "kept": kept, "anchor": stream.anchor, "options": options,
             "model": inspect_folder(stream.model).digest}
        )  # fmt: skip

    def _after(self) -> dict[str, Any]:
        """What the model as it is now knows."""
        loaded = load(self.model)
        subject = Subject(loaded.model, loaded.tokenizer, digest=loaded.digest)
        subject = served(subject, inspect_folder(self.model))
        roles = {role: rows for role, rows in self.stream.kept.items() if rows}
        with evaluating(subject.model):
            kept = {role: _known(subject, rows) for role, rows in roles.items()}
            requests = [_known(subject, one.forget) for one in self.stream.requests]
        return asdict(After(kept=kept, requests=requests))


def _known(subject: Subject, rows: Sequence[Row]) -> Known:
    task = Task(
        model=subject.model,
        tokenizer=subject.tokenizer,
        encoder=subject.encoder,
        roles={"forget": rows},
    )
    datasets = Datasets(task, device=str(subject.model.device))
    found = level(subject.model, datasets, [own for own, *_ in datasets.items("forget")])
    return Known(nll=found.nll, accuracy=found.accuracy)


def _words(done: Done) -> str:
    if done.status == "unchanged":
        return f"request {done.id}: nothing to do"
    return f"request {done.id}: {done.summary['steps']} steps"


def _read_record(out: Path) -> dict[str, Any]:
    """What an earlier run has recorded; nothing where that is unreadable."""
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        return dict(record) if record["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
