"""Verifying a certificate, offline: signature, time, files, result, model, log, in this order."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.limits import CERTIFICATE_BYTES
from expunge.report.certificate import chain
from expunge.report.certificate.claims import compare_claims, compare_summary
from expunge.report.certificate.envelope import AGAIN, misspelt, open_envelope
from expunge.report.certificate.folder import CERTIFICATE, FILES, AuditFolder, file_in
from expunge.report.certificate.keys import key_id, public_key
from expunge.report.certificate.reading import Unreadable, contents, stamp, time_of
from expunge.report.certificate.statement import PREDICATE, files_of, read_statement
from expunge.report.certificate.weights import at_hand, differences, measure, other_model

SKEW = timedelta(minutes=5)
"""By how much the clocks of issuer and verifier may differ."""
NOT_CHECKED, NOT_VERIFIED = "not checked", "not verified"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate whose signature verifies.

    Attributes:
        statement: What it says.
        keyid: The key that signed it.
        digest: SHA-256 of its file.
    """

    statement: dict[str, Any]
    keyid: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """A certificate that verifies, and how far it was checked.

    Attributes:
        certificate: What was verified.
        signer: ``verified`` or ``not verified``: whether the key is the one that was expected.
        model: ``weights and files verified``, ``weights verified`` or ``not checked``.
        path: Folder of the model that was checked.
        log: Where it stands in the log, if one was given.
        has_head: Whether the log was checked against a head.
    """

    certificate: Certificate
    signer: str
    model: str
    path: Path | None
    log: chain.Included | None
    has_head: bool

    def as_dict(self) -> dict[str, Any]:
        """The value printed under ``--json``."""
        stated, log = self.certificate.statement["predicate"], self.log
        return {
            "format": PREDICATE,
            "verdict": stated["verdict"],
            "result": stated["result"],
            "erasure_score": stated["erasure_score"],
            "interval": stated["interval"],
            "utility": stated["utility"] and stated["utility"]["value"],
            "issued": stated["issued"],
            "expires": stated["expires"],
            "digest": self.certificate.digest,
            "signature": "verified",
            "signer": self.signer,
            "keyid": self.certificate.keyid,
            "files": dict.fromkeys(stated["files"], "verified"),
            "model": self.model,
            "model_path": None if self.path is None else str(self.path),
            "log": log and {"index": log.index, "records": log.records, "head": log.head},
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """What was not checked, in sentences."""
        notes = []
        if self.signer == NOT_VERIFIED:
            notes.append(
                "Signer not verified: the key came with the certificate, so that nothing was "
                "changed since is shown, but not who signed; give the signer's public key by --key."
            )
        if self.model == NOT_CHECKED:
            notes.append(
                "Model not checked: its folder is not where the audit found it; give it by --model."
            )
        elif not files_of(self.certificate.statement):
            notes.append(
                "Only the model's weights are certified: its folder was not at hand for signing, "
                "so tokenizer, chat template and guard may be others."
            )
        if self.log is not None and not self.has_head:
            notes.append(
                "The log is unbroken; that it was not cut off or replaced, only a head that you "
                "kept can show (--head)."
            )
        return notes


def read_certificate(data: bytes) -> Certificate:
    """Read the file of a certificate and verify its signature under the key it carries.

    Raises:
        ExpungeError: ``E-CERT-001`` to ``E-CERT-004``.
    """
    sealed = open_envelope(data)
    statement = read_statement(sealed.payload, sealed.keyid)
    return Certificate(statement, sealed.keyid, sha256(data).hexdigest())


def verify(
    folder: str | Path,
    *,
    key: Path | None = None,
    model: Path | None = None,
    require_model: bool = False,
    certificate: Path | None = None,
    log: Path | None = None,
    head: str | None = None,
    now: datetime | None = None,
) -> Verified:
    """Verify the certificate of an audit; loads no model and uses no network.

    Args:
        folder: Of the audit.
        key: The public key that must have signed; without it anybody may have.
        model: Folder of the model, if it is not where the audit found it.
        require_model: Refuse when the model is not at hand.
        certificate: The certificate, if it is not ``certificate.json`` in ``folder``.
        log: Log that must contain it.
        head: Head that must still be in the log.
        now: The time; the clock's by default.

    Raises:
        ExpungeError: ``E-CERT-...`` and ``E-LOG-...`` for what does not verify.
    """
    folder, now = Path(folder), now or datetime.now(UTC)
    _check_options(log, head)
    found = _signed(certificate or folder / CERTIFICATE, key)
    _check_time(found.statement["predicate"], now)
    record = _check_files(folder, found.statement["predicate"])
    path = at_hand(model, record["models"]["model"]["path"])
    return Verified(
        certificate=found,
        signer="verified" if key else NOT_VERIFIED,
        model=_check_model(path, found.statement, require_model),
        path=path,
        log=None if log is None else chain.find(log, found.digest, head),
        has_head=head is not None,
    )


def _signed(path: Path, key: Path | None) -> Certificate:
    """The certificate, signed with ``key`` if one is given."""
    expected = None if key is None else key_id(public_key(key))
    found = read_certificate(_file(path))
    if expected is not None and expected != found.keyid:
        raise _other_signer(found.keyid, expected)
    return found


def _file(path: Path) -> bytes:
    if not path.exists():
        raise ExpungeError(
            "E-DATA-001",
            f"There is no certificate {path}.",
            "the folder of an audit that was signed.",
            "Check the path, or name the certificate by --certificate.",
        )
    try:
        return contents(path, CERTIFICATE_BYTES)
    except Unreadable as error:
        raise misspelt(str(error)) from error


def _check_time(stated: dict[str, Any], now: datetime) -> None:
    try:
        issued = time_of(stated["issued"])
        expires = stated["expires"] and time_of(stated["expires"])
    except Unreadable as error:
        raise misspelt(str(error)) from error
    why = ""
    if issued > now + SKEW:
        why = f"was issued in the future, at {stated['issued']}"
    elif expires and expires <= max(now, issued):
        why = f"expired at {stated['expires']}"
    if why:
        raise ExpungeError(
            "E-CERT-006",
            f"The certificate {why}; it is {stamp(now)}.",
            "a certificate that is valid now.",
            "Ask its issuer for a new one, or correct the clock of this machine.",
        )


def _check_files(folder: Path, stated: dict[str, Any]) -> dict[str, Any]:
    """The record, once all files are those certified and agree with one another."""
    files = {}
    for name in FILES:
        try:
            files[name] = file_in(folder, name)
        except Unreadable as error:
            raise _other_file(name, str(error)) from error
    audit = AuditFolder(files)
    for name, digest in audit.digests.items():
        if digest != stated["files"][name]:
            raise _other_file(name, "it was changed after it was signed")
    try:
        record, summary = audit.record(), audit.summary()
    except (Unreadable, ExpungeError) as error:
        raise _no_record(error) from error
    compare_claims(stated, record)
    compare_summary(summary, record)
    return record


def _check_model(path: Path | None, statement: dict[str, Any], required: bool) -> str:
    if path is None:
        if required:
            raise ExpungeError(
                "E-CERT-010",
                "The model is not where the audit found it, so it was not checked.",
                "the model of the certificate, since --require-model is given.",
                "Give its folder by --model.",
            )
        return NOT_CHECKED
    try:
        measured = measure(path)
    except ExpungeError as error:
        raise other_model(path, f"it cannot be used ({error.found})", "certified") from error
    if measured.digest != statement["predicate"]["weights"]["model"]:
        raise other_model(path, "its weights have another digest", "certified")
    certified = files_of(statement)
    if not certified:
        return "weights verified"
    if differ := differences(measured.files, certified):
        raise other_model(path, f"its files differ ({differ})", "certified")
    return "weights and files verified"


def _other_signer(found: str, expected: str) -> ExpungeError:
    return ExpungeError(
        "E-CERT-005",
        f"The certificate is signed with the key {found[:16]}..., not {expected[:16]}....",
        "a certificate signed with the key given by --key.",
        AGAIN,
    )


def _other_file(name: str, why: str) -> ExpungeError:
    return ExpungeError(
        "E-CERT-007",
        f"{name} is not the certified one: {why}.",
        "audit.json, report.html and summary.json as they were signed.",
        AGAIN,
    )


def _no_record(error: Exception) -> ExpungeError:
    why = error.found if isinstance(error, ExpungeError) else f"A file cannot be read: {error}."
    return ExpungeError(
        "E-CERT-008",
        f"What was signed is no finished audit. {why}",
        "the files of an audit by a version of expunge that writes this format.",
        AGAIN,
    )


def _check_options(log: Path | None, head: str | None) -> None:
    if head is not None and log is None:
        raise ExpungeError(
            "E-USE-006",
            "--head without --log.",
            "the log that the head is of.",
            "Add --log FILE.",
        )
