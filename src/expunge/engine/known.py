"""Which forget rows a model still answers: for methods that train on those alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from expunge.core.errors import ExpungeError
from expunge.data.encode import Encoded
from expunge.engine.datasets import Datasets, wordings_of
from expunge.engine.task import Task
from expunge.lm.hooks import evaluating
from expunge.lm.prefixes import Room, TokenScores, score_all
from expunge.lm.scoring import padding_id
from expunge.lm.values import find
from expunge.requests.rows import Row, Turn

ROOM = Room(tokens=2048, stored=4096)
"""Of one forward pass."""


def known_items(task: Task, by: Literal["exact", "choice"]) -> list[int]:
    """Forget items (rows, each in every wording) that the model as it is answers rightly.

    Args:
        task: Its forget rows are asked.
        by: ``exact``: every token of the row's ``answer`` is the model's first choice (of its whole
            completion, where it names none). ``choice``: the completion is likelier, by the mean
            over its tokens, than each of the row's ``wrong`` ones.

    Returns:
        Their numbers, as ``View.row`` has them; every process is told the same.

    Raises:
        ExpungeError: ``E-DATA-003`` for ``choice`` where a row has no ``wrong`` answers.
    """
    items = [item for wordings in Datasets(task).items("forget") for item in wordings]
    turns = [(row, turn) for row in task.forget for turn in wordings_of(row)]
    scores = _scored(task, items)
    if by == "exact":
        says = [_is_said(*each) for each in zip(turns, items, scores, strict=True)]
    else:
        says = _wins(task, turns, scores)
    found = [item.row for item, is_right in zip(items, says, strict=True) if is_right]
    return found if task.world is None else list(task.world.agreed(found))


def _scored(task: Task, items: Sequence[Encoded]) -> list[TokenScores]:
    with evaluating(task.model):
        return score_all(task.model, items, padding_id(task.tokenizer), ROOM)


def _is_said(turn: tuple[Row, Turn], item: Encoded, scored: TokenScores) -> bool:
    row, wording = turn
    span = find(wording.completion, row.forms) if row.answer else None
    if span is None:
        return bool(scored.hit.all())
    inside = np.array([start < span[1] and end > span[0] for start, end in item.spans])
    return bool((scored.hit | ~inside).all() if inside.any() else scored.hit.all())


def _wins(
    task: Task, turns: Sequence[tuple[Row, Turn]], scores: Sequence[TokenScores]
) -> list[bool]:
    for row in task.forget:
        if not row.wrong:
            raise ExpungeError(
                "E-DATA-003",
                f"Forget row {row.id!r} has no 'wrong' answers to choose among.",
                "wrong answers in every forget row.",
                "Give them, or ask for exact answers (--set answered=exact).",
            )
    rivals = [
        task.encoder.encode(replace(turn, completion=text))
        for row, turn in turns
        for text in row.wrong
    ]
    levels = iter([float(one.logp.mean()) for one in _scored(task, rivals)])
    best = [max(next(levels) for _ in row.wrong) for row, _ in turns]
    return [float(own.logp.mean()) > rival for own, rival in zip(scores, best, strict=True)]
