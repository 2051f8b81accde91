"""Extraction strength of a model's own answers: the share of an answer that follows by itself."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.text.overlap import recalled_tail

_WORD = re.compile(r"\S+")


def forced_strength(subject: Subject, rows: Sequence[Row]) -> dict[str, float]:
    """Row id -> share of the answer's tokens in its longest tail of first choices.

    One forward pass a row, every token behind the right ones; the closing token does not count.

    Args:
        subject: The model.
        rows: The rows, ids distinct; one without a token of text is left out.
    """
    found: dict[str, float] = {}
    for row, scored in zip(rows, subject.score([row.turn for row in rows]), strict=True):
        if scored.text_tokens:
            hits = scored.hit[: scored.text_tokens]
            found[row.id] = recalled_tail(hits.tolist())
    return found


def written_strength(subject: Subject, rows: Sequence[Row]) -> dict[str, float]:
    """Row id -> ``1 - k/W``: k of the answer's W words are needed for the model to write the rest.

    One greedy generation for every word of every row.

    Args:
        subject: The model.
        rows: The rows, ids distinct; one whose answer has no words is left out.
    """
    needed: dict[str, int] = {}
    words: dict[str, int] = {}
    starts: dict[int, list[_Start]] = defaultdict(list)
    for row in rows:
        tokens = len(subject.encoder.encode(row.turn).spans)
        starts[tokens] += _starts(row)
        words |= {row.id: count} if (count := len(_WORD.findall(row.reply))) else {}
    for tokens, group in starts.items():
        turns, openings = [start.row.turn for start in group], [start.opening for start in group]
        answers = subject.ask(turns, new_tokens=tokens, openings=openings)
        for start, (text, *_) in zip(group, answers, strict=True):
            if text.split()[: len(start.rest)] == start.rest:
                known = needed.get(start.row.id, start.given)
                needed[start.row.id] = min(known, start.given)
    return {row: 1.0 - needed.get(row, count) / count for row, count in words.items()}


@dataclass(frozen=True, slots=True)
class _Start:
    """An answer begun with some of its words."""

    row: Row
    given: int
    opening: str
    rest: list[str]


def _starts(row: Row) -> list[_Start]:
    places = list(_WORD.finditer(row.reply))
    words = [place.group() for place in places]
    return [
        _Start(row, given, row.reply[: place.start()], words[given:])
        for given, place in enumerate(places)
    ]
