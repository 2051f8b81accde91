"""The ledger: one line for every deletion, each sealed with the hash of the line before it.

Lines are only ever added. The hash of the last one stands in ``change.json``, so a line that was
changed, taken out or put in is found by whoever reads the two. A line holds hashes and no text;
whoever has a text can tell whether it was among what was deleted.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_bytes
from expunge.core.canonical import canonical, digest
from expunge.core.errors import ExpungeError

FILE = "ledger.jsonl"
START = "0" * 64
"""What the first line names as the line before it."""


class Ledger:
    """The lines of an ensemble's ledger.

    Attributes:
        lines: In order; each names the hash of the one before under ``previous``.
    """

    def __init__(self, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        self.lines = [dict(line) for line in lines]

    @property
    def head(self) -> str:
        """The hash of the last line."""
        return digest(self.lines[-1]) if self.lines else START

    def add(self, event: str, **told: Any) -> None:
        """Add a line, with the time.

        Args:
            event: ``built``, ``deleted`` or ``retrained``.
            **told: What else it says; plain JSON values.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.lines.append({"event": event, **told, "time": now, "previous": self.head})

    @property
    def deleted(self) -> set[str]:
        """Hashes of the content of all rows that were deleted."""
        return {line["row"] for line in self.lines if line["event"] == "deleted"}

    def write(self, folder: Path) -> None:
        """Write all lines into a folder."""
        write_bytes(folder / FILE, b"".join(canonical(line) + b"\n" for line in self.lines))

    @classmethod
    def read(cls, folder: Path) -> "Ledger":
        """The ledger of a folder, its chain of hashes checked.

        Raises:
            ExpungeError: ``E-MODEL-009`` when a line is not the one that was written.
        """
        try:
            lines = [json.loads(line) for line in (folder / FILE).read_bytes().splitlines()]
            _check(lines)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ExpungeError(
                "E-MODEL-009",
                f"The ledger in {folder} is not as it was written: {str(error)[:200]}.",
                "lines that each name the hash of the line before.",
                "Somebody changed it: take the folder from a backup.",
            ) from error
        return cls(lines)


def _check(lines: Sequence[Mapping[str, Any]]) -> None:
    before = START
    for number, line in enumerate(lines, 1):
        if line["previous"] != before:
            raise ValueError(f"line {number} does not follow the line before it")
        if line["event"] == "deleted" and not isinstance(line["row"], str):
            raise ValueError(f"line {number} names no row")
        before = digest(line)
