"""The log of certificates: one line each, chained by hashes, so that no past can be rewritten.

A line is the canonical JSON of ``{certificate, hash, index, previous, time}``. ``hash`` is the
SHA-256 of the line without it, and ``previous`` the hash of the line before (of the name of the
format, for the first). The last hash is the *head*: whoever keeps one can tell later whether the
log was cut off or replaced, which the log alone cannot show.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from expunge.core.atomic import replacing
from expunge.core.errors import ExpungeError
from expunge.report.certificate.reading import HEX, STAMP, stamp

FORMAT = "unlearning-log/1"
START = hashlib.sha256(FORMAT.encode()).hexdigest()
"""What the first line names as the hash before it."""
LINE_BYTES = 1024
_NAMED = '"hash":"'
_LINE = re.compile(
    (
        rf'\{{"certificate":"({HEX})",{_NAMED}(?P<named>{HEX})","index":(0|[1-9][0-9]{{0,14}}),'
        rf'"previous":"({HEX})","time":"({STAMP})"\}}\n'
    ).encode()
)


@dataclass(slots=True)  # not frozen: that would halve the speed of reading a long log
class Link:
    """One line of a log.

    Attributes:
        index: Its number, from 0.
        time: When it was appended.
        certificate: SHA-256 of the file of the certificate.
        previous: Hash of the line before.
        hash: What the next line names as its previous.
    """

    index: int
    time: str
    certificate: str
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Included:
    """Where a certificate stands in a log.

    Attributes:
        index: Number of its line.
        records: Lines of the log.
        head: Hash of the last line.
    """

    index: int
    records: int
    head: str


def append(path: str | Path, certificate: str, now: datetime) -> Included:
    """Add a certificate to a log, which is made when there is none.

    The log is checked before it is extended, and afterwards it is the old or the new one, never
    half. Processes that append at the same time wait for one another.

    Args:
        path: The log.
        certificate: SHA-256 of the file of the certificate.
        now: The time.

    Raises:
        ExpungeError: ``E-LOG-001`` when the log is broken, ``E-REQ-002`` when the disk is full.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        last = deque(links(path) if path.exists() else (), maxlen=1)
        index, previous = (last[0].index + 1, last[0].hash) if last else (0, START)
        line, hash = _line(index, stamp(now), certificate, previous)
        with replacing(path) as temporary:
            if last:
                shutil.copyfile(path, temporary)
            with open(temporary, "ab") as stream:
                stream.write(line)
    return Included(index, index + 1, hash)


def find(path: str | Path, certificate: str, head: str | None = None) -> Included:
    """Check a log from its first line to its last, and find a certificate in it.

    Args:
        path: The log.
        certificate: SHA-256 of the file of the certificate.
        head: A head of this log, kept from any time since; it must still be in it.

    Returns:
        The first line of the certificate.

    Raises:
        ExpungeError: ``E-LOG-001`` when the chain is broken, ``E-LOG-002`` when the certificate is
            not in it, ``E-LOG-003`` when the head is not.
    """
    found, last, is_known = None, None, head is None
    for last in links(Path(path)):
        if found is None and last.certificate == certificate:
            found = last.index
        is_known = is_known or last.hash == head
    if not is_known:
        raise ExpungeError(
            "E-LOG-003",
            f"{path} has no line with the hash {head}.",
            "a log that still contains the head you kept.",
            "Lines were cut off, or this is another log; ask its keeper for the whole one.",
        )
    if found is None or last is None:
        raise ExpungeError(
            "E-LOG-002",
            f"The certificate is not in {path}.",
            "a line of the log with the digest of this very file.",
            "Ask the issuer for the certificate that was logged; it may have been replaced.",
        )
    return Included(found, last.index + 1, last.hash)


def links(path: Path) -> Iterator[Link]:
    """The lines of a log, each checked against the one before.

    Raises:
        ExpungeError: ``E-LOG-001`` with the first line that is wrong.
    """
    if not path.is_file():
        raise _broken(path, "there is no such file")
    with path.open("rb") as stream:
        yield from checked(stream, path)


def checked(stream: BinaryIO, path: Path) -> Iterator[Link]:
    """As `links`, of an open file; ``path`` is its name in messages."""
    previous, index = START, 0
    while line := stream.readline(LINE_BYTES):
        link = _link(path, line, index)
        if link.index != index or link.previous != previous:
            raise _broken(path, f"line {index + 1} does not follow the line before it")
        yield link
        previous, index = link.hash, index + 1
    if not index:
        raise _broken(path, "it is empty")


def _link(path: Path, line: bytes, index: int) -> Link:
    """One line, whose hash is its own."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise _broken(path, f"line {index + 1} is cut off or not spelt as a line of a log")
    start, end = match.span("named")
    hashed = line[: start - len(_NAMED)] + line[end + len('",') : -1]
    certificate, named, number, previous, time = (part.decode() for part in match.groups())
    if hashlib.sha256(hashed).hexdigest() != named:
        raise _broken(path, f"line {index + 1} was changed")
    return Link(int(number), time, certificate, previous, named)


def _line(index: int, time: str, certificate: str, previous: str) -> tuple[bytes, str]:
    """A new line, and its hash."""
    first = f'{{"certificate":"{certificate}",'
    rest = f'"index":{index},"previous":"{previous}","time":"{time}"}}'
    hash = hashlib.sha256((first + rest).encode()).hexdigest()
    return f'{first}{_NAMED}{hash}",{rest}\n'.encode(), hash


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process appends to ``path``; the lock dies with its holder.

    The lock file stays: taking it away would let two processes lock two files of one name.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path.with_name(f".{path.name}.lock"), flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _broken(path: Path, why: str) -> ExpungeError:
    return ExpungeError(
        "E-LOG-001",
        f"The log {path} does not verify: {why}.",
        "an unbroken chain of lines from the first on.",
        "Restore the log from a copy; a broken log is never extended.",
    )
