"""Issuing a certificate for a finished audit."""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_bytes
from expunge.core.errors import ExpungeError
from expunge.core.limits import CERTIFICATE_BYTES
from expunge.report.certificate import chain
from expunge.report.certificate.claims import claims_of, compare_summary
from expunge.report.certificate.envelope import open_envelope, seal
from expunge.report.certificate.folder import (
    CERTIFICATE,
    FILES,
    RECORD,
    SUMMARY,
    AuditFolder,
    file_in,
)
from expunge.report.certificate.keys import SigningKey
from expunge.report.certificate.reading import Unreadable, after, contents, stamp
from expunge.report.certificate.statement import files_of, make_statement, read_statement
from expunge.report.certificate.weights import Measured, at_hand, measure, other_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """A certificate that was issued.

    Attributes:
        path: Its file.
        digest: SHA-256 of that file.
        statement: What it says.
        log: Where it stands in the log, if one was given.
    """

    path: Path
    digest: str
    statement: dict[str, Any]
    log: chain.Included | None

    def as_dict(self) -> dict[str, Any]:
        """The value printed under ``--json``."""
        stated, log = self.statement["predicate"], self.log
        return {
            "certificate": str(self.path),
            "digest": self.digest,
            "keyid": stated["signer"]["keyid"],
            "verdict": stated["verdict"],
            "result": stated["result"],
            "issued": stated["issued"],
            "expires": stated["expires"],
            "model_files": len(files_of(self.statement)),
            "log": log and {"index": log.index, "records": log.records, "head": log.head},
        }


def sign(
    folder: str | Path,
    key: SigningKey,
    *,
    model: Path | None = None,
    days: int | None = None,
    out: Path | None = None,
    log: Path | None = None,
    now: datetime | None = None,
) -> Signed:
    """Sign what an audit found.

    The log comes first: a certificate is never unlogged, and a line without one does no harm.

    Args:
        folder: The folder of an audit.
        key: Signs it.
        model: Folder of the audited model, if it is not where the audit found it.
        days: The certificate expires after so many; None for never.
        out: File to write; ``certificate.json`` in ``folder`` by default.
        log: Log of certificates to append to.
        now: The time; the clock's by default.

    Raises:
        ExpungeError: ``E-DATA-...`` when there is no finished audit, ``E-CERT-...`` when its files
            or its model are not what it was; what is wrong with ``out`` or ``log``.
    """
    folder, now = Path(folder), now or datetime.now(UTC)
    path = _place(folder, out, log)
    audit = _finished(folder)
    record = _consistent(audit, folder)
    measured = _measured(model, record)
    predicate = {**_issue(key, now, days), "files": audit.digests, **claims_of(record)}
    weights = record["models"]["model"]["digest"]
    payload = make_statement(weights, measured.files if measured else {}, predicate)
    data, statement = seal(payload, key), read_statement(payload, key.id)
    digest = sha256(data).hexdigest()
    included = None if log is None else chain.append(log, digest, now)
    write_bytes(path, data)
    return Signed(path=path, digest=digest, statement=statement, log=included)


def _issue(key: SigningKey, now: datetime, days: int | None) -> dict[str, Any]:
    """Who states it, and for how long."""
    return {
        "issued": stamp(now),
        "expires": None if days is None else stamp(after(now, days)),
        "signer": {"keyid": key.id, "version": version("expunge")},
    }


def _place(folder: Path, out: Path | None, log: Path | None) -> Path:
    """Where the certificate goes, which may replace another certificate and nothing else."""
    path = out or folder / CERTIFICATE
    is_log = log is not None and path.resolve() == log.resolve()
    if path.is_dir() or is_log or (out is not None and path.exists() and not _is_sealed(path)):
        raise ExpungeError(
            "E-USE-004",
            f"{path} is no certificate, and would be replaced by one.",
            "the name of a new file, or of a certificate.",
            "Name another file by --out.",
        )
    return path


def _is_sealed(path: Path) -> bool:
    try:
        open_envelope(contents(path, CERTIFICATE_BYTES))
    except (Unreadable, ExpungeError):
        return False
    return True


def _finished(folder: Path) -> AuditFolder:
    try:
        return AuditFolder({name: file_in(folder, name) for name in FILES})
    except Unreadable as error:
        raise ExpungeError(
            "E-DATA-016",
            f"{folder} holds no finished audit: of {', '.join(FILES)}, one cannot be read: "
            f"{error}.",
            "a folder that expunge audit wrote.",
            "Give the --out of an audit that ended.",
        ) from error


def _consistent(audit: AuditFolder, folder: Path) -> dict[str, Any]:
    """The record, when it is one and the summary agrees with it."""
    try:
        record, summary = audit.record(), audit.summary()
    except Unreadable as error:
        raise ExpungeError(
            "E-DATA-002",
            f"{RECORD} or {SUMMARY} in {folder}: {error}.",
            "the files as expunge audit wrote them.",
            "Run the audit again.",
        ) from error
    compare_summary(summary, record)
    return record


def _measured(given: Path | None, record: dict[str, Any]) -> Measured | None:
    """The model as it is now, which must be the model as it was audited; None when not here."""
    audited = record["models"]["model"]
    path = at_hand(given, audited["path"])
    if path is None:
        return None
    measured = measure(path)
    if measured.digest != audited["digest"]:
        raise other_model(path, "its weights have another digest", "audited")
    return measured
