"""Random answers: an option of the question, or what another row answers; perhaps the true one."""

from collections.abc import Sequence
from math import lcm

from expunge.core.errors import ExpungeError
from expunge.data.encode import Encoded
from expunge.engine.alternates import said_instead
from expunge.engine.datasets import Datasets
from expunge.engine.task import Paired, Task
from expunge.requests.rows import Row, Turn
from expunge.text.choices import LETTERS

MOST = 1 << 16
"""Candidates a row has at most; where rows have different numbers of answers, each of a row's is
drawn as often as any other only where their common multiple is below."""

SPARE = 4
"""Positions that stay free, for the tokens at the seam of prompt and answer."""


def random_answers(task: Task, *, redraw: bool, own: bool = True) -> Paired:
    """The view of forget rows with random answers.

    Args:
        task: What is asked.
        redraw: Whether a row gets another one in every epoch.
        own: Whether that may be its own, the true one.

    Raises:
        ExpungeError: ``E-USE-007`` when a row has no answer but its own.
    """
    answers = {
        row.id: [text for text in options if own or text != row.reply.strip()]
        for row, options in _answers(task)
    }
    count = min(MOST, lcm(*(len(options) for options in answers.values())))

    def make(row: Row, wording: int, candidate: int) -> Turn:
        options = answers[row.id]
        return said_instead(row, wording, options[candidate % len(options)])

    return Paired(make, count=count, fixed=not redraw)


def options_of(row: Row) -> list[str]:
    """The options of a row that is a multiple choice, the true one among them; else empty.

    They are the letters where it is answered by one, the options its ``meta`` lists, or its own
    answer and the ``wrong`` ones.
    """
    own, listed = row.reply.strip(), row.meta.get("options")
    if isinstance(listed, list) and len(listed) > 1:
        letters = LETTERS[: len(listed)]
        return list(letters) if own in letters else [str(option) for option in listed]
    return [own, *(text.strip() for text in row.wrong)] if row.wrong else []


def _answers(task: Task) -> list[tuple[Row, list[str]]]:
    """Each forget row with all it may be answered by."""
    datasets = Datasets(task)
    pool = _pool(task.forget, datasets.items("forget"))
    if len({row.value.strip() for row, _ in pool}) < 2 and task.retain:
        pool += _pool(task.retain, datasets.items("retain"))
    found = []
    for row, wordings in zip(task.forget, datasets.items("forget"), strict=True):
        room = task.encoder.max_length - max(len(item.ids) for item in wordings) - SPARE
        free = [_taken(row, other) for other, more in pool if more <= room or other is row]
        options = list(dict.fromkeys(options_of(row) or free))
        if len(options) < 2:
            raise _no_other(row)
        found.append((row, options))
    return found


def _pool(rows: Sequence[Row], items: Sequence[Sequence[Encoded]]) -> list[tuple[Row, int]]:
    """Rows that answer anything, and how many tokens that takes."""
    pairs = zip(rows, items, strict=True)
    return [(row, len(own[0].spans)) for row, own in pairs if row.reply.strip()]


def _taken(row: Row, other: Row) -> str:
    """What another row answers; where a row's own fact can be told, its reply with that one's.

    A whole reply would tell the other's fact as it is, of whom it is true.
    """
    if row.answer and row.answer in row.reply:
        return row.reply.replace(row.answer, other.value.strip()).strip()
    return other.reply.strip()


def _no_other(row: Row) -> ExpungeError:
    return ExpungeError(
        "E-USE-007",
        f"Row {row.id!r} has no answer but its own: no options, and no other row answers anything "
        "else that fits.",
        "wrong answers in the row, or rows with different answers.",
        "Give the column 'wrong', more rows to forget, or --retain FILE, whose answers then stand "
        "in.",
    )
