"""Where the fact stands in an answer, and what else could stand there.

A *place* is the value inside one wording of a row; a *contest* is that wording with its true value
and with rival values put in its place. Attacks that read probabilities compare the two. No torch.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from expunge.requests.rows import Row, Turn
from expunge.requests.scope import swaps
from expunge.text.match import ENTITY_WORDS

ENOUGH = 6
"""Rival values a row needs before the share of the true one can pass at some hundred rows."""

FALLBACK = 0.25
"""Threshold of attacks that cannot use the values of other rows."""

_NOTES = {
    "swaps": "",
    "wrong": "too few rows share an attribute: compared with the rows' own wrong answers",
    "strength": "no rival values and no wrong answers: extraction strength",
}

Form = Literal["auto", "swaps", "wrong", "strength"]


@dataclass(frozen=True, slots=True)
class Place:
    """A value inside the completion of one turn.

    Attributes:
        turn: The wording.
        start: First character of the value in ``turn.completion``.
        end: One past its last character.
    """

    turn: Turn
    start: int
    end: int

    def holding(self, value: str) -> "Place":
        """The same wording with another value in this place."""
        text = self.turn.completion
        swapped = replace(self.turn, completion=text[: self.start] + value + text[self.end :])
        return Place(swapped, self.start, self.start + len(value))


@dataclass(frozen=True, slots=True)
class Contest:
    """One wording of one row with its true value first, then its rivals."""

    row: str
    lines: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """All contests of a set of rows.

    Attributes:
        form: ``swaps`` (values of other rows), ``wrong`` (the rows' own wrong answers) or
            ``strength`` (no rivals: the whole answer, for the extraction strength).
        contests: One for each wording that holds the value.
        left_out: Rows that the form cannot test.
    """

    form: Form
    contests: tuple[Contest, ...]
    left_out: int

    @property
    def threshold(self) -> float | None:
        """What replaces a card's threshold where chance is too large for it."""
        return None if self.form == "swaps" else FALLBACK

    @property
    def note(self) -> str:
        """What a reader of the result must know."""
        left_out = f"{self.left_out} rows have none and are left out" if self.left_out else ""
        return "; ".join(filter(None, (_NOTES[self.form], left_out)))


def prompt_text(turn: Turn) -> str:
    """All that is said before the completion, as one text."""
    if isinstance(turn.prompt, str):
        return turn.prompt
    return "\n".join(message["content"] for message in turn.prompt)


def find(text: str, forms: Iterable[str]) -> tuple[int, int] | None:
    """Character range of the first whole-word occurrence of the longest form that occurs."""
    for form in sorted((form.strip() for form in forms), key=len, reverse=True):
        found = re.search(rf"(?<!\w){re.escape(form)}(?!\w)", text, re.IGNORECASE) if form else None
        if found:
            return found.span()
    return None


def places(row: Row) -> list[Place]:
    """The value in each wording of a row; the whole completion where no `answer` is given.

    Wordings whose completion does not hold the value are left out, unless none does.
    """
    if not row.answer:
        return [_whole(turn) for turn in row.turns]
    spans = [(turn, find(turn.completion, row.forms)) for turn in row.turns]
    return [Place(turn, *span) for turn, span in spans if span] or [_whole(row.turn)]


def opening_of(row: Row, turn: Turn, *, affirmation: str, share: float) -> tuple[str, str]:
    """What an attacker puts into the model's mouth, and what is then left for it to say.

    The opening is the answer up to its value. Where the value comes first it is ``affirmation``;
    for a long answer without a marked value it is the first ``share`` of the words.
    """
    text = turn.completion
    span = find(text, row.forms) if row.answer else None
    if span and text[: span[0]].strip():
        return text[: span[0]].rstrip(), text[span[0] :]
    ends = [word.end() for word in re.finditer(r"\S+", text)]
    if not row.answer and len(ends) > ENTITY_WORDS:
        cut = ends[max(1, round(share * len(ends))) - 1]
        return text[:cut], text[cut:]
    lead = text[: len(text) - len(text.lstrip())]
    return lead + affirmation, text


def draw(rows: Sequence[Row], *, k: int, seed: int, form: Form = "auto") -> Field:
    """Rivals for every row: swapped values if at least half of the rows have enough of them.

    Otherwise the rows' own wrong answers, if at least half have some; otherwise none.

    Args:
        rows: The attacked rows.
        k: Rivals of a row at most.
        seed: Which rivals, where there are more.
        form: Fix the form instead, for instance to that of another set of rows.
    """
    by_form: dict[Form, _Lines] = {
        "swaps": _swapped(rows, k, seed),
        "wrong": _wrong(rows, k),
        "strength": {row.id: [(_whole(turn),) for turn in row.turns] for row in rows},
    }
    if form == "auto":
        form = next(name for name, lines in by_form.items() if 2 * len(lines) >= len(rows))
    chosen = by_form[form]
    contests = tuple(Contest(row, lines) for row, each in chosen.items() for lines in each)
    return Field(form, contests, len(rows) - len(chosen))


_Lines = dict[str, list[tuple[Place, ...]]]
"""Row id -> the lines of each of its wordings."""


def _whole(turn: Turn) -> Place:
    return Place(turn, 0, len(turn.completion))


def _swapped(rows: Sequence[Row], k: int, seed: int) -> _Lines:
    rivals = swaps(rows, k=k, seed=seed)
    return {
        row.id: [(place, *map(place.holding, rivals[row.id])) for place in places(row)]
        for row in rows
        if len(rivals.get(row.id, ())) >= min(ENOUGH, k)
    }


def _wrong(rows: Sequence[Row], k: int) -> _Lines:
    return {row.id: _wrong_lines(row, k) for row in rows if row.wrong}


def _wrong_lines(row: Row, k: int) -> list[tuple[Place, ...]]:
    """Wrong answers in every wording where only the value differs, else whole, in the row's own."""
    own, *_ = places(row)
    before, after = own.turn.completion[: own.start], own.turn.completion[own.end :]
    wrong = row.wrong[:k]
    if row.answer and all(_frames(text, before, after) for text in wrong):
        values = [text[len(before) : len(text) - len(after)] for text in wrong]
        return [(place, *map(place.holding, values)) for place in places(row)]
    rivals = [_whole(replace(row.turn, completion=text)) for text in wrong]
    return [(_whole(row.turn), *rivals)]


def _frames(text: str, before: str, after: str) -> bool:
    fits = text.startswith(before) and text.endswith(after)
    return fits and len(text) > len(before) + len(after)
