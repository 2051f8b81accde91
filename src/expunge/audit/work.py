"""What a planned audit will do, counted, and what that needs: answers, readings, lessons.

Every attack runs on three sets of rows: the original's, the model's and the control's. Its
``effort`` tells what it does there. Where there is none it is read off its parameters: ``budget``
is a number of answers to a row, ``steps`` and ``batch_size`` are a lesson after which the model is
asked again, ``k`` a number of rivals whose values are read; any other attack asks every wording
once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from expunge.audit.plan import Entry, Plan
from expunge.audit.utility import MOST_ROWS
from expunge.core.registry import attacks
from expunge.core.results import Effort
from expunge.data.encode import Encoded
from expunge.engine.counts import HELD_LOGITS, SCORED_LOGITS, VALUE, Pass, Size, size_of
from expunge.engine.estimate import (
    BASE_BYTES,
    MOMENTS,
    MOVE_SECONDS,
    START_SECONDS,
    TOUCH_SECONDS,
    UPDATE_BYTES,
    WRITE_SECONDS,
    Machine,
    measured_machine,
    seconds_of,
)
from expunge.lm.folder import Folder
from expunge.lm.readout import LINES_AT_ONCE
from expunge.lm.relearn import GRID, RETAIN_ASKED
from expunge.requests.rows import Row

MOUNTS = 3
"""Original, model, control."""

BATCH = 32
"""Rows of one forward pass, and answers written together."""

SHORTEST, LONGEST = 24, 96
"""Bounds of the length of an answer, in tokens."""

WRITE_CALL = 0.0005
"""Seconds of one token of a batch of answers outside the model: choosing it, keeping the past."""

JUDGE_SECONDS = 0.0001
"""Seconds to decode one answer and to look for the value in it."""

VALUE_TOKENS = 4
"""Tokens of a value with the one before it."""

ROUNDING = 40
"""Values touched for each weight to round a model and to compare its codes with the original's."""

VERDICT_SECONDS = 1.0
"""Resampling, verdict and report."""

RECORD_BYTES = 280
"""What one row of one attack takes in ``audit.json`` and the report."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one audit does, all models together.

    Attributes:
        answers: Number of answers written.
        scored: Passes without gradient.
        lessons: Passes with gradient.
        asked: Tokens of a question.
        written: Tokens of an answer until its batch has ended.
        updated: Updates of all weights.
        copied: Copies of the weights, made one after another.
        rounded: Copies that are rounded.
    """

    answers: float = 0
    scored: tuple[Pass, ...] = ()
    lessons: tuple[Pass, ...] = ()
    asked: float = 0
    written: float = 0
    updated: float = 0
    copied: float = 0
    rounded: float = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of an audit in numbers.

    Attributes:
        forget: Number of forget rows.
        wordings: Wordings of a forget row.
        kept: Number of rows on which utility is measured.
        kept_wordings: Wordings of all of them.
        wrong: Wrong completions of a forget row.
        length: Tokens of a wording with its completion.
        reply: Tokens of a completion.
        longest: Tokens of the longest completion.
    """

    forget: int
    wordings: float
    kept: int
    kept_wordings: int
    wrong: float
    length: float
    reply: float
    longest: int

    @classmethod
    def count(
        cls, rows: Mapping[str, Sequence[Row]], encoded: Mapping[str, Sequence[Encoded]]
    ) -> "Rows":
        """Count rows and their token ids."""
        forget, items = rows["forget"], encoded["forget"]
        kept = [row for role in ("retain", "neighbour") for row in rows.get(role, ())[:MOST_ROWS]]
        replies = [len(item.spans) for item in items]
        return cls(
            forget=len(forget),
            wordings=sum(len(row.turns) for row in forget) / len(forget),
            kept=len(kept),
            kept_wordings=sum(len(row.turns) for row in kept),
            wrong=sum(len(row.wrong) for row in forget) / len(forget),
            length=sum(len(item.ids) for item in items) / len(items),
            reply=sum(replies) / len(replies),
            longest=max(replies),
        )


def work_of(chosen: Plan, rows: Rows, models: int) -> Work:
    """Count what an audit does.

    Args:
        chosen: Attacks and metrics.
        rows: The rows in numbers.
        models: Models held at once: original, model and, where given, the reference.
    """
    new_tokens = min(LONGEST, max(SHORTEST, rows.longest))
    metrics = rows.forget * (rows.wordings + rows.wrong)
    base = Work(
        answers=2 * rows.kept_wordings + rows.forget * rows.wordings,
        scored=(_reading(2 * rows.kept, rows), _reading(models * metrics, rows)),
        asked=rows.length - rows.reply,
        written=(min(rows.longest, new_tokens) + new_tokens) / 2,
    )
    for entry in chosen.entries:
        for _ in range(entry.runs * MOUNTS):
            base = _with(base, entry, rows)
    return base


def _with(work: Work, entry: Entry, rows: Rows) -> Work:
    """``work`` and one mounting of an attack."""
    params = attacks.params(entry.id, entry.params)
    wordings = rows.forget * rows.wordings
    told = getattr(attacks.load(entry.id), "effort", None)
    if told is not None:
        return _with_effort(work, told(params, rows.forget, round(wordings)), rows)
    budget, steps, rivals = (getattr(params, name, None) for name in ("budget", "steps", "k"))
    if budget is not None:
        return replace(work, answers=work.answers + rows.forget * budget)
    if steps is not None:
        return _with_lesson(work, params, rows)
    if rivals is not None:
        begun = replace(_reading(wordings, rows), supervised=0)
        lines = wordings * (rivals + 1)
        values = Pass(
            1, lines * VALUE_TOKENS, lines * VALUE_TOKENS, ceil(lines / (LINES_AT_ONCE * BATCH))
        )
        return replace(work, scored=(*work.scored, begun, values))
    if attacks.card(entry.id).extra.get("family") == "compression":
        copied, rounded = work.copied + 2, work.rounded + 1
        work = replace(work, copied=copied, rounded=rounded)
    if attacks.card(entry.id).extra.get("family") == "read-out":
        return replace(work, scored=(*work.scored, _reading(wordings, rows)))
    return replace(work, answers=work.answers + wordings)


def _with_effort(work: Work, effort: Effort, rows: Rows) -> Work:
    """``work`` and what an attack says it does."""
    scored = (_reading(effort.forwards, rows),) if effort.forwards else ()
    steps = ceil(effort.backwards / BATCH)
    lesson = Pass(steps, BATCH * rows.length, BATCH * rows.reply)
    return replace(
        work,
        answers=work.answers + effort.answers,
        scored=(*work.scored, *scored),
        lessons=(*work.lessons, lesson) if steps else work.lessons,
        copied=work.copied + effort.copies,
    )


def _with_lesson(work: Work, params: Any, rows: Rows) -> Work:
    """``work`` and one lesson: its steps, and the questions on the way and after it."""
    times = len({step for step in GRID if 0 < step < params.steps} | {params.steps})
    asked = rows.forget * rows.wordings * times + RETAIN_ASKED
    lesson = Pass(params.steps, params.batch_size * rows.length, params.batch_size * rows.reply)
    return replace(
        work,
        answers=work.answers + asked,
        lessons=(*work.lessons, lesson),
        updated=work.updated + params.steps,
        copied=work.copied + 1,
    )


def _reading(texts: float, rows: Rows) -> Pass:
    """Some wordings with their completions, scored."""
    return Pass(1, texts * rows.length, texts * rows.reply, ceil(texts / BATCH))


def estimate(
    chosen: Plan,
    folder: Folder,
    encoded: Mapping[str, Sequence[Encoded]],
    rows: Mapping[str, Sequence[Row]],
    models: int,
    *,
    machine: Machine | None = None,
) -> dict[str, float]:
    """Time, memory and disk of an audit.

    Args:
        chosen: Attacks and metrics.
        folder: The audited model, inspected.
        encoded: Role -> its encoded wordings.
        rows: Role -> its rows.
        models: Models held at once.
        machine: How fast this machine is; measured when not given.

    Returns:
        ``seconds`` at most (an audit whose original does not know the rows ends early),
        ``memory_bytes`` at the peak, ``disk_bytes``.
    """
    machine = machine or measured_machine()
    size = size_of(folder.parameters, folder.config, folder.tensors)
    counted = Rows.count(rows, encoded)
    work = work_of(chosen, counted, models)
    return {
        "seconds": round(seconds(size, work, machine, models * folder.bytes), 1),
        "memory_bytes": float(memory(size, work, counted, models)),
        "disk_bytes": float(MOUNTS * counted.forget * RECORD_BYTES * max(1, len(chosen.entries))),
    }


def seconds(size: Size, work: Work, machine: Machine, stored: int) -> float:
    """Seconds of an audit; ``stored`` is the size of all models on disk."""
    batches = ceil(work.answers / BATCH)
    asked = Pass(1, work.answers * work.asked, work.answers, batches)
    written = Pass(
        1, work.answers * work.written, work.answers * work.written, batches * work.written
    )
    passes = seconds_of(size, [asked, written, *work.scored], machine)
    lessons = seconds_of(size, work.lessons, machine, passes=3)
    outside = (
        START_SECONDS
        + VERDICT_SECONDS
        + WRITE_CALL * batches * work.written
        + JUDGE_SECONDS * work.answers
        + UPDATE_BYTES * MOVE_SECONDS * size.parameters * work.updated
        + TOUCH_SECONDS * ROUNDING * size.parameters * work.rounded
    )
    moved = WRITE_SECONDS * (2 * stored + VALUE * work.copied * size.parameters)
    return passes + lessons + machine.slowness * outside + moved


def memory(size: Size, work: Work, rows: Rows, models: int) -> int:
    """Bytes at the peak: in a lesson on a copy, in a rounding, or reading values."""
    scored = BATCH * rows.reply
    if any(one.supervised > BATCH * rows.reply for one in work.scored):
        scored = max(scored, LINES_AT_ONCE * BATCH * VALUE_TOKENS)
    largest = SCORED_LOGITS * size.vocabulary * scored
    for lesson in work.lessons:
        held = size.held(lesson.tokens) + HELD_LOGITS * size.vocabulary * lesson.supervised
        largest = max(largest, (2 + MOMENTS) * size.parameters + held)
    if work.rounded:
        largest = max(largest, 2 * size.parameters + size.vocabulary * BATCH)
    return int(BASE_BYTES + VALUE * (models * size.parameters + largest))
