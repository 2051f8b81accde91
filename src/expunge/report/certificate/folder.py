"""The audit folder: its three files, each read once, so that what is hashed is what is believed."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from expunge.audit.schema import check_record
from expunge.core.limits import AUDIT_BYTES
from expunge.report.certificate.reading import contents, strict

RECORD, REPORT, SUMMARY = FILES = ("audit.json", "report.html", "summary.json")
CERTIFICATE = "certificate.json"


@dataclass(frozen=True, slots=True)
class AuditFolder:
    """What an audit left behind.

    Attributes:
        files: Name -> bytes.
    """

    files: Mapping[str, bytes]

    @property
    def digests(self) -> dict[str, str]:
        """Name -> SHA-256."""
        return {name: sha256(data).hexdigest() for name, data in self.files.items()}

    def record(self) -> dict[str, Any]:
        """The value of ``audit.json``.

        Raises:
            Unreadable: When it is no JSON of one reading.
            ExpungeError: ``E-DATA-003`` when it is no record of an audit.
        """
        record: dict[str, Any] = strict(self.files[RECORD])
        check_record(record)
        return record

    def summary(self) -> Any:
        """The value of ``summary.json``.

        Raises:
            Unreadable: When it is no JSON of one reading.
        """
        return strict(self.files[SUMMARY])


def file_in(folder: Path, name: str) -> bytes:
    """One of the files of an audit folder.

    Raises:
        Unreadable: When it is missing or too long.
    """
    return contents(folder / name, AUDIT_BYTES)
