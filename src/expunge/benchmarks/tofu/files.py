"""The upstream files of TOFU: read, joined and checked.

They are JSON Lines although their suffix is ``.json``. Rows are matched by (question, answer):
one question text occurs twice with different answers, so the question alone names no row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from expunge.core.errors import ExpungeError, raise_all
from expunge.data.upstream import Record, records

ROWS_PER_AUTHOR = 20
SPLITS: Mapping[str, tuple[str, int]] = {
    "forget01": ("retain99", 1),
    "forget05": ("retain95", 5),
    "forget10": ("retain90", 10),
}
"""Split -> (file of the rows to keep, percentage of the authors to forget)."""


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
        holdout: Rows of other invented authors whom no model was trained on; empty where the
            folder has no such file.
    """

    forget: Sequence[Record]
    retain: Sequence[Record]
    retain_evaluated: Sequence[Record]
    real_authors: Sequence[Record]
    world_facts: Sequence[Record]
    holdout: Sequence[Record] = ()

    def author_of(self, record: Record) -> int | None:
        """Number of the invented author a record is about; None for the real world."""
        return self._authors.get(key(record))

    @cached_property
    def _authors(self) -> Mapping[tuple[str, str], int]:
        # The forgotten authors are the last ones, and the rows of an author stand together.
        rows = (*self.retain, *self.forget, *self.holdout)
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
    unseen = data / f"{split.replace('forget', 'holdout')}.json"
    holdout = read_records(unseen) if unseen.is_file() else []
    raise_all(
        [
            *_counts(forget, retain, percent),
            *_unique(retain, forget, holdout),
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
        holdout=holdout,
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
        ExpungeError: E-DATA-001, E-DATA-003, E-DATA-007 for a row that stands twice, and whatever
            is wrong with a line.
    """
    lists = {"perturbed_answer": list}
    wanted = {name: lists.get(name, str) for name in ("question", "answer", *columns)}
    return records(path, wanted, unique=("question", "answer"))


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


def _unique(*files: Sequence[Record]) -> list[ExpungeError]:
    seen: set[tuple[str, str]] = set()
    problems = []
    for record in (record for file in files for record in file):
        if key(record) in seen:
            problems.append(
                _unfit(
                    f"The row {record['question']!r} with this answer occurs twice.",
                    "every pair of question and answer once, in one of the files.",
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
