"""Flags on single tokens: those that carry what is to be forgotten, or that a method picked.

A table of flags has one entry for each item of a view, in the order of the items: which of its
supervised tokens are meant, counted from 0. It is plain JSON, so it may stand in ``task.state``.
`Marked` is a wording whose secrets are known by their places in the text.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from expunge.data.encode import IGNORED, Encoded
from expunge.engine.datasets import wordings_of
from expunge.engine.task import Ranges
from expunge.engine.view import View
from expunge.requests.rows import Row, Turn

Table = Sequence[Sequence[int]]
"""Item -> its flagged tokens."""


def flagged(view: View, table: Table) -> Tensor:
    """Which supervised tokens of a view are flagged.

    Args:
        view: Its items are looked up by `View.row`; one without an entry has no flag.
        table: The flags of all items of the view.

    Returns:
        [N] bool.
    """
    width = int(view.lengths.max()) if len(view.row) else 0
    flags = torch.zeros(len(view.row), width, dtype=torch.bool)
    for place, item in enumerate(view.row.tolist()):
        if item < len(table):
            flags[place, list(table[item])] = True
    return flags.to(view.labels.device)[view.inputs.batch_row, view.position]


def spoken(item: Encoded) -> list[int]:
    """The supervised tokens of an item that are text; what ends the turn is none."""
    return [place for place, (start, end) in enumerate(item.spans) if start < end]


def touching(item: Encoded, ranges: Ranges) -> list[int]:
    """Which supervised tokens of an item touch one of some character ranges of its completion.

    Every piece of a word counts, also one that reaches out of the range. What ends the turn
    touches none.
    """
    return [
        place
        for place in spoken(item)
        if any(item.spans[place][0] < end and item.spans[place][1] > start for start, end in ranges)
    ]


def only(item: Encoded, places: Iterable[int]) -> Encoded:
    """The item with some of its supervised tokens supervised, and no others."""
    said = [at for at, label in enumerate(item.labels) if label != IGNORED]
    kept = sorted(set(places))
    inside = {said[place] for place in kept}
    labels = [label if at in inside else IGNORED for at, label in enumerate(item.labels)]
    return replace(item, labels=labels, spans=[item.spans[place] for place in kept])


def carrying(row: Row, wording: int) -> list[tuple[int, int]]:
    """Where one wording of a row says what is to be forgotten: character ranges of its completion.

    They are the row's ``spans``, which hold for its own wording; else all places of its ``answer``
    and ``aliases``. Empty where the row has none of these, or where they do not occur.
    """
    if wording == 0 and row.spans:
        return list(row.spans)
    forms = [*row.aliases] if row.answer is None else [row.answer, *row.aliases]
    return occurrences(wordings_of(row)[wording].completion, forms)


def occurrences(text: str, forms: Iterable[str]) -> list[tuple[int, int]]:
    """Character ranges of every whole-word occurrence of some forms, in order, without overlaps.

    Of forms that begin at the same place the longest counts; case does not.
    """
    wanted = {stripped for form in forms if (stripped := form.strip())}
    if not wanted:
        return []
    longest_first = sorted(wanted, key=lambda form: (-len(form), form))
    pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)"
    return [found.span() for found in re.finditer(pattern, text, re.IGNORECASE)]


class Marked(NamedTuple):
    """One wording of a row, with its secrets.

    Attributes:
        turn: What is said.
        ranges: Character ranges of its completion that are secret.
        is_whole: Whether all of it is, its end included.
    """

    turn: Turn
    ranges: Ranges
    is_whole: bool

    @property
    def secrets(self) -> list[str]:
        """The secret texts."""
        return [self.turn.completion[start:end] for start, end in self.ranges]

    def flags(self, item: Encoded) -> list[int]:
        """Which supervised tokens of the wording are secret."""
        return list(range(len(item.spans))) if self.is_whole else touching(item, self.ranges)

    def replaced(self, placeholder: str) -> "Marked":
        """With ``placeholder`` in the place of every secret; the space in front of it stays."""
        said, text, end = self.turn.completion, "", 0
        ranges = []
        for start, last in self.ranges:
            lead = last - len(said[start:last].lstrip())
            text += said[end:lead]
            ranges.append((len(text), len(text) + len(placeholder)))
            text, end = text + placeholder, last
        return Marked(replace(self.turn, completion=text + said[end:]), ranges, self.is_whole)


def marked(row: Row, more: Sequence[str] = ()) -> list[Marked]:
    """Every wording of a row with its secrets; one in which none is found is secret as a whole.

    Args:
        row: The row; what it marks itself is secret, see `carrying`.
        more: Texts that are secret as well.
    """
    found = []
    for wording, turn in enumerate(wordings_of(row)):
        ranges = joined([*carrying(row, wording), *occurrences(turn.completion, more)])
        found.append(Marked(turn, ranges or [(0, len(turn.completion))], not ranges))
    return found


def joined(ranges: Ranges) -> list[tuple[int, int]]:
    """Ranges in order, those that overlap made one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
