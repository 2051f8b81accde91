"""What the benchmarks of facts share: rows that stand once, and the file a benchmark is in."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from expunge.core.errors import ExpungeError, nearest
from expunge.requests.rows import Row


def distinct(
    rows: Iterable[Row], *, without: Iterable[Row] = (), most: int | None = None
) -> list[Row]:
    """Rows that ask and answer different things, in an order that no file decides.

    Args:
        rows: The rows; of those that say the same, one is kept.
        without: Rows whose content must not be among them.
        most: Keep at most so many: those whose ids come first.
    """
    taken = {said(row) for row in without}
    found: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: row.id):
        if said(row) not in taken:
            found.setdefault(said(row), row)
    return list(found.values())[:most]


def said(row: Row) -> tuple[str, str]:
    """What makes two rows of prompt and completion the same."""
    return row.prompt or "", row.completion or ""


def known_split(benchmark: str, split: str, splits: Sequence[str]) -> str:
    """A split that there is.

    Raises:
        ExpungeError: E-USE-001 for any other.
    """
    if split not in splits:
        raise ExpungeError(
            "E-USE-001",
            f"{benchmark} has no split {split!r}.",
            f"one of {', '.join(splits)}.",
            nearest(split, splits),
        )
    return split


def only_file(data: Path, pattern: str) -> Path:
    """The one file of a folder whose name matches.

    Raises:
        ExpungeError: E-DATA-001 where there is none, E-DATA-014 where there are several.
    """
    found = sorted(path for path in data.glob(pattern) if path.is_file())
    if len(found) == 1:
        return found[0]
    code, number = ("E-DATA-014", f"{len(found)} files") if found else ("E-DATA-001", "no file")
    raise ExpungeError(
        code,
        f"{data} has {number} like {pattern}.",
        "one of them: rows of several files would be counted twice.",
        "Point --data to a folder with one file.",
    )


def first_file(data: Path, names: Sequence[str]) -> Path:
    """The first of these files that is there.

    Raises:
        ExpungeError: E-DATA-001 where none is.
    """
    for name in names:
        if (data / name).is_file():
            return data / name
    raise ExpungeError(
        "E-DATA-001",
        f"{data} has none of {', '.join(names)}.",
        "the files of the benchmark, as their authors publish them.",
        "Point --data to the folder that holds them.",
    )


def incomplete(where: str, lacking: str, expected: str) -> ExpungeError:
    """A record that lacks something inside one of its columns."""
    return ExpungeError(
        "E-DATA-003", f"{where}: {lacking}.", expected, "Use the upstream files unchanged."
    )
