"""The upstream files of TOFU: read, joined and checked.

They are JSON Lines although their suffix is ``.json``. Rows are matched by (question, answer):
one question text occurs twice with different answers, so the question alone names no row.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError, raise_all
from expunge.data.strict_json import parse_line

ROWS_PER_AUTHOR = 20
SPLITS: Mapping[str, tuple[str, int]] = {
    "forget01": ("retain99", 1),
    "forget05": ("retain95", 5),
    "forget10": ("retain90", 10),
}
"""Split -> (file of the rows to keep, percentage of the authors to forget)."""

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Files:
    """The records of one split, checked.

    Attributes:
        forget: Rows to be forgotten, with paraphrased and wrong answers.
        retain: All rows to be kept.
        retain_evaluated: Those of them on which models are compared, with paraphrased and wrong
            answers.
        real_authors: Questions about real authors, with wrong answers.
        world_facts: Questions about the world, with wrong answers.
    """

    forget: Sequence[Record]
    retain: Sequence[Record]
    retain_evaluated: Sequence[Record]
    real_authors: Sequence[Record]
    world_facts: Sequence[Record]

    def author_of(self, record: Record) -> int | None:
        """Number of the invented author a record is about; None for the real world."""
        return self._authors.get(key(record))

    @cached_property
    def _authors(self) -> Mapping[tuple[str, str], int]:
        # The forgotten authors are the last ones, and the rows of an author stand together.
        rows = (*self.retain, *self.forget)
        return {key(record): index // ROWS_PER_AUTHOR for index, record in enumerate(rows)}


def read_files(data: Path, split: str) -> Files:
    """Read one split.

    Args:
        data: Folder with the upstream files; a version cut to fewer whole authors will do.
        split: ``forget01``, ``forget05`` or ``forget10``.

    Raises:
        ExpungeError: E-DATA-001 to E-DATA-010 for files that are missing or broken, E-DATA-014 when
            their rows do not fit together.
    """
    kept, percent = SPLITS[split]
    forget, retain = read_records(data / f"{split}.json"), read_records(data / f"{kept}.json")
    evaluated = ("paraphrased_answer", "perturbed_answer")
    forget_evaluated = read_records(data / f"{split}_perturbed.json", *evaluated)
    retain_evaluated = read_records(data / "retain_perturbed.json", *evaluated)
    raise_all(
        [
            *_counts(forget, retain, percent),
            *_unique(forget, retain),
            *_within(forget, forget_evaluated, f"{split}_perturbed.json", whole=True),
            *_within(retain, retain_evaluated, "retain_perturbed.json", whole=False),
        ]
    )
    return Files(
        forget=_enriched(forget, forget_evaluated),
        retain=retain,
        retain_evaluated=retain_evaluated,
        real_authors=read_records(data / "real_authors_perturbed.json", "perturbed_answer"),
        world_facts=read_records(data / "world_facts_perturbed.json", "perturbed_answer"),
    )


def key(record: Record) -> tuple[str, str]:
    """What names a row: its question together with its answer."""
    return record["question"], record["answer"]


def read_records(path: Path, *columns: str) -> list[Record]:
    """The records of one file.

    Args:
        path: JSON Lines.
        *columns: What each record must have besides question and answer.

    Raises:
        ExpungeError: E-DATA-001, E-DATA-003, and whatever is wrong with a line.
    """
    if not path.is_file():
        raise ExpungeError(
            "E-DATA-001",
            f"{path} is not there.",
            "the files of the TOFU data set, as their authors publish them, in one folder.",
            "Point --data to the folder that holds forget10.json and its siblings.",
        )
    records = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path.name}:{number}"
            if line.strip():
                records.append(_record(line, where, ("question", "answer", *columns)))
    return records


def _record(line: bytes, where: str, columns: Collection[str]) -> Record:
    record = parse_line(line, where)
    _has(record if isinstance(record, Mapping) else {}, columns, where)
    return dict(record)


def _has(record: Record, columns: Collection[str], where: str) -> None:
    for column in columns:
        wanted = list if column == "perturbed_answer" else str
        if not isinstance(record.get(column), wanted):
            raise ExpungeError(
                "E-DATA-003",
                f"{where}: no {column!r}.",
                f"the columns {', '.join(columns)}.",
                "Use the upstream files unchanged.",
            )


def _counts(forget: Sequence[Record], retain: Sequence[Record], percent: int) -> list[ExpungeError]:
    total = len(forget) + len(retain)
    are_whole = total % ROWS_PER_AUTHOR == 0 == len(forget) % ROWS_PER_AUTHOR
    if forget and retain and are_whole and len(forget) * 100 == total * percent:
        return []
    return [
        _unfit(
            f"{len(forget)} rows to forget and {len(retain)} to keep.",
            f"{percent} percent of whole authors of {ROWS_PER_AUTHOR} rows.",
        )
    ]


def _unique(forget: Sequence[Record], retain: Sequence[Record]) -> list[ExpungeError]:
    seen: set[tuple[str, str]] = set()
    problems = []
    for record in (*retain, *forget):
        if key(record) in seen:
            problems.append(
                _unfit(
                    f"The row {record['question']!r} with this answer occurs twice.",
                    "every pair of question and answer once, in one of the two files.",
                )
            )
        seen.add(key(record))
    return problems


def _within(
    rows: Sequence[Record], evaluated: Sequence[Record], name: str, *, whole: bool
) -> list[ExpungeError]:
    known, given = {key(record) for record in rows}, {key(record) for record in evaluated}
    strangers, lacking = given - known, known - given if whole else set()
    if not strangers and not lacking:
        return []
    return [
        _unfit(
            f"{name} has {len(strangers)} rows that are not in the split and lacks {len(lacking)}.",
            "the same rows with paraphrased and wrong answers.",
        )
    ]


def _unfit(found: str, expected: str) -> ExpungeError:
    return ExpungeError("E-DATA-014", found, expected, "Take all files from one release.")


def _enriched(rows: Sequence[Record], evaluated: Sequence[Record]) -> list[Record]:
    """The rows in their own order, with what the evaluated file says of each."""
    by_key = {key(record): record for record in evaluated}
    return [{**by_key.get(key(record), {}), **record} for record in rows]
