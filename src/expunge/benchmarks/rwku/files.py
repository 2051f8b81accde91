"""The upstream files of RWKU, in both layouts, for one target or for all.

The hub has one file for each kind of probe with the rows of all targets; the authors' code reads
one folder for each target. What stands twice about one target is asked once.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from expunge.core.errors import ExpungeError, nearest
from expunge.data.upstream import Columns, records

Record = Mapping[str, Any]

ALL = "all"


class File(NamedTuple):
    """One kind of rows: its file on the hub, in the folder of a target, and its columns."""

    hub: str
    folder: str
    columns: Columns


PROBE: Columns = dict.fromkeys(("subject", "query", "answer", "type"), str)
TARGETS: Columns = {"mc1_targets": dict, "mc2_targets": dict, "question": str}

FILES: Mapping[str, File] = {
    "forget_level1": File("forget_level1", "forget_level1", PROBE),
    "forget_level2": File("forget_level2", "forget_level2", PROBE),
    "forget_level3": File("forget_level3", "forget_level3", PROBE),
    "neighbor_level1": File("neighbor_level1", "neighbor_level1", PROBE),
    "neighbor_level2": File("neighbor_level2", "neighbor_level2", PROBE),
    "mia_forget": File("mia_forget", "forget_mia", {"subject": str, "text": str}),
    "mia_retain": File("mia_retain", "retain_mia", {"subject": str, "text": str}),
    "mmlu": File(
        "utility_general_mmlu",
        "retain_mmlu",
        {"question": str, "choices": list, "answer": int, "task": str, "examples": list},
    ),
    "bbh": File(
        "utility_reason_bbh",
        "retain_bbh",
        dict.fromkeys(("question", "answer", "task", "cot"), str),
    ),
    "truthfulqa": File("utility_truthfulness", "truthful", TARGETS),
    "triviaqa": File("utility_factuality_triviaqa", "triviaqa", {"question": str, "answers": list}),
    "fluency": File("utility_fluency", "fluency", {"instruction": str}),
    "passages": File("train_original_passage", "passage", {"subject": str, "text": str}),
    "generated": File("train_positive_llama3", "positive", {"subject": str, "text": str}),
}
PROBES = tuple(name for name, file in FILES.items() if file.columns is PROBE)
"""Files that must be there; any other may be missing, and its numbers say so."""

BY_TARGET = (*PROBES, "mia_forget", "mia_retain", "passages", "generated")
"""Files of which a split by target takes the target's rows only."""

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Files:
    """The records of one split.

    Attributes:
        data: Folder of the files.
        split: ``all``, or a target by its name or number.
    """

    data: Path
    split: str

    def read(self, name: str) -> list[Record]:
        """The records of one kind.

        Args:
            name: One of `FILES`.

        Raises:
            ExpungeError: E-USE-001 for an unknown target; E-DATA-001 to E-DATA-010 for files that
                are missing or broken.
        """
        found = [
            record for path in self._paths(name) for record in records(path, FILES[name].columns)
        ]
        if self.target is None or name not in BY_TARGET:
            return found
        mine = [record for record in found if record["subject"] == self.target]
        if not mine:
            raise ExpungeError(
                "E-DATA-005",
                f"{FILES[name].hub} has no row about {self.target}.",
                "rows of every kind about the target.",
                "Take another target, or the files of another release.",
            )
        return mine

    def has(self, name: str) -> bool:
        """Whether there is a file of this kind."""
        return any(path.is_file() for path in self._paths(name))

    @cached_property
    def target(self) -> str | None:
        """Name of the target; None for all of them.

        Raises:
            ExpungeError: E-USE-001 when no probe is about it.
        """
        if self.split == ALL:
            return None
        wanted = self.split.replace("_", " ").casefold().strip()
        names = dict(self._targets())
        for number, name in names.items():
            if wanted in (number, name.casefold(), f"{number} {name}".casefold()):
                return name
        known = sorted(set(names.values()))
        raise ExpungeError(
            "E-USE-001",
            f"RWKU has no target {self.split!r} in these files.",
            f"all, or one of {', '.join(known[:20])}.",
            nearest(self.split, known),
        )

    def _targets(self) -> Iterator[tuple[str, str]]:
        """Number (or the name again) and name of every target."""
        for path in self._paths("forget_level1"):
            of_folder = _NUMBER.match(path.parent.name)
            for record in records(path, PROBE):
                number = record.get("target_id", of_folder and of_folder[0])
                yield str(number or record["subject"]), record["subject"]

    def _paths(self, name: str) -> Sequence[Path]:
        """The files of one kind; where there are none, the one that should be there."""
        file = FILES[name]
        hub = [self.data / f"{file.hub}.{suffix}" for suffix in ("jsonl", "json")]
        found = [path for path in hub if path.is_file() and self._is_hub]
        places = ("", "*/", "Target/*/") if not self._is_hub else ()
        for place in places:
            found = found or sorted(self.data.glob(f"{place}{file.folder}.json"))
        return found[:1] if self._is_hub and found else found or hub[:1]

    @cached_property
    def _is_hub(self) -> bool:
        return (self.data / "forget_level1.jsonl").is_file()
