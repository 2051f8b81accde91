"""Lessons: prompts that a model answers while it learns, and what its answers are judged by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from expunge.core.errors import ExpungeError
from expunge.core.families import ReinforcementParams
from expunge.core.rng import generator
from expunge.data.encode import Encoder
from expunge.engine.datasets import reply_with
from expunge.requests.names import names_of, prompts_of
from expunge.requests.rows import Row, Turn
from expunge.requests.scope import subject_of
from expunge.text.embedding import embedder
from expunge.text.naming import PLAIN
from expunge.text.normalise import normalise
from expunge.text.refusal import is_refusal

Aim = Literal["forget", "keep"]
Item = TypeVar("Item")

SHORTEST = 24
"""Tokens that an answer may have in any case."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One prompt.

    Attributes:
        row: The row it is of.
        turn: In one of its wordings; the completion is the true answer.
        aim: Whether the answer is to be forgotten or kept.
        names: How the subject is called, longest first; may be empty.
        entity: What the lesson is about: the subject's id, else its names, else the row.
    """

    row: Row
    turn: Turn
    aim: Aim
    names: tuple[str, ...]
    entity: str

    @property
    def gold(self) -> str:
        """The true answer."""
        return self.turn.completion.strip()


Reward = Callable[[str, Lesson, Any, Any], float | None]
"""(What the model said, the lesson, task, params) -> the reward, or None where it judges not."""


def lessons_of(rows: Sequence[Row], aim: Aim, among: Sequence[Row] = ()) -> list[Lesson]:
    """A lesson for every wording of every row.

    Args:
        rows: Rows that ask something.
        aim: Of all of them.
        among: Rows that names are looked for in as well; none looks in ``rows``.
    """
    names = names_of([*among] or rows)
    return [
        Lesson(row, turn, aim, names[row.id], subject_of(row, names[row.id]))
        for row in rows
        for turn in row.turns
    ]


def asking(rows: Sequence[Row]) -> list[Row]:
    """The rows that ask something; running text does not."""
    return [row for row in rows if row.text is None]


def part_of(total: int, share: float, fewest: int) -> int:
    """How many rows a share stands for: at least ``fewest``, and no more than there are."""
    return min(total, max(round(share * total), fewest))


def drawn(rows: Sequence[Item], count: int, seed: int, name: str) -> list[Item]:
    """``count`` rows or lessons at random, in their own order."""
    if count >= len(rows):
        return list(rows)
    chosen = generator(seed, name).choice(len(rows), count, replace=False)
    return [rows[int(place)] for place in sorted(chosen)]


def nearest(rows: Sequence[Row], others: Sequence[Row], count: int) -> list[Row]:
    """The ``count`` of the others whose questions resemble those of the rows most.

    Args:
        rows: Rows to be forgotten.
        others: Where to choose.
        count: How many; of rows that resemble alike the first ones.
    """
    if count >= len(others):
        return list(others)
    embed = embedder()
    own = embed([prompt for row in rows for prompt in prompts_of(row)])
    closest = (embed([prompts_of(row)[0] for row in others]) @ own.T).max(axis=1)
    chosen = np.argsort(-closest, kind="stable")[:count]
    return [others[int(place)] for place in sorted(chosen)]


def mistaken(rows: Sequence[Row]) -> list[Row]:
    """Rows whose true answer is taken for a refusal, so that a right answer would be punished."""
    return [row for row in rows if is_refusal(row.reply)]


def refuse_mistakes(rows: Sequence[Row], most: float) -> None:
    """Refuse rows to be kept whose answers the rule for refusals takes for refusals.

    Args:
        rows: Rows to be kept.
        most: Largest share of them that may be.

    Raises:
        ExpungeError: ``E-USE-006``.
    """
    wrong = mistaken(rows)
    if rows and len(wrong) / len(rows) >= most:
        raise ExpungeError(
            "E-USE-006",
            f"{len(wrong)} of {len(rows)} answers to be kept look like refusals (the first: "
            f"{wrong[0].id!r}, {wrong[0].reply.strip()[:60]!r}).",
            f"fewer than {most:.0%}: rewards would punish these answers.",
            "Leave those rows out, or raise --set false_positives.",
        )


def refuse_running_text(method: str, rows: Mapping[str, Sequence[Row]]) -> None:
    """Refuse forget rows that ask nothing.

    Raises:
        ExpungeError: ``E-USE-007``.
    """
    silent = [row for row in rows.get("forget", ()) if row.text is not None]
    if silent:
        raise ExpungeError(
            "E-USE-007",
            f"{len(silent)} forget rows are running text (the first: {silent[0].id!r}), and "
            f"{method} learns from answers to questions.",
            "rows with a prompt and a completion, or with messages.",
            "Write questions about these texts, or name another --method.",
        )


def answer_length(longest: int, positions: int, params: ReinforcementParams) -> int:
    """How many tokens an answer may have.

    Args:
        longest: Tokens of the longest true answer.
        positions: Of the model.
        params: A number in ``new_tokens`` is taken as it is, as far as there are positions.
    """
    wanted = max(SHORTEST, 2 * longest) if params.new_tokens == "auto" else int(params.new_tokens)
    most = positions // 2 if params.new_tokens == "auto" else positions - 2
    return max(1, min(wanted, most))


def prompt_ids(encoder: Encoder, lesson: Lesson, most: int) -> list[int]:
    """The prompt as tokens; of one that is too long the end, after what opens every row.

    Args:
        encoder: Of the model.
        lesson: Whose prompt.
        most: Tokens it may have.
    """
    ids = encoder.prompt(lesson.turn.prompt, lesson.turn.running)
    if len(ids) <= most:
        return ids
    opening = ids[:1] if ids[0] in encoder.tokenizer.all_special_ids else []
    return opening + ids[len(ids) - most + len(opening) :]


def saying(lesson: Lesson, text: str, number: int) -> Row:
    """A row that answers a lesson's prompt with ``text``, to be trained on.

    Args:
        lesson: Whose prompt.
        text: What is said, after the white space the true answer begins with.
        number: Of the row, for its id.
    """
    prompt, said = lesson.turn.prompt, reply_with(lesson.turn, text).completion
    name = f"{lesson.row.id}/{number}"
    if isinstance(prompt, str):
        return Row(id=name, prompt=prompt, completion=said)
    return Row(id=name, messages=(*prompt, {"role": "assistant", "content": said}))


def sayable(encoder: Encoder, *pools: Sequence[str]) -> list[str]:
    """The texts that come out of the tokenizer as they went in, of the first pool that has any.

    Args:
        encoder: Of the model.
        pools: Refusals; `expunge.text.naming.PLAIN` is the last one.

    Raises:
        ExpungeError: ``E-RUN-007`` when there is none in any.
    """

    def survives(text: str) -> bool:
        ids = encoder.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
        return normalise(encoder.decode(ids)) == normalise(text)

    for pool in (*pools, PLAIN):
        if found := [text for text in pool if survives(text)]:
            return found
    raise ExpungeError(
        "E-RUN-007",
        f"No refusal comes out of the tokenizer as it went in, not even {PLAIN[0]!r}.",
        "a tokenizer that knows the words of at least one.",
        "Use --set steer=never, or a model whose tokenizer knows more words.",
    )
