"""Readings as metrics see them: one table a reading, row id -> what the model said of that row.

A metric is arithmetic over such tables. This page holds what all of them share: taking the rows
that have every reading asked for, matching two models by row and never by position, averaging,
and saying plainly that something cannot be measured.
"""

import math
from collections.abc import Mapping, Sized
from statistics import fmean
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.results import Value

Scores = Mapping[str, Any]
"""Reading name -> {row id: value}, or a plain list whose rows are called "0", "1", ..."""

PARTS = "parts"
"""The reading of a number made of other numbers: name -> number, None where there is none."""


def table(scores: Scores, name: str) -> dict[str, Any]:
    """One reading as {row id: value}, without the rows that have none.

    Args:
        scores: The readings of one model.
        name: Which of them, for instance ``"nll"``.

    Returns:
        Row id -> value. Rows whose value is None or an empty list are left out; a reading that
        was not made is an empty table.
    """
    return {row: value for row, value in asked(scores, name).items() if _is_given(value)}


def asked(scores: Scores, name: str) -> dict[str, Any]:
    """One reading as {row id: value}, rows without a value included.

    A part that is not a finite number is None.
    """
    values = scores.get(name, {})
    if not isinstance(values, Mapping):
        values = {str(index): value for index, value in enumerate(values)}
    if name == PARTS:
        # Clipping, smallest and harmonic mean would each turn a NaN into an ordinary number.
        values = {part: number if _is_finite(number) else None for part, number in values.items()}
    return {str(row): value for row, value in values.items()}


def _is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _is_given(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Sized):
        return value is not None
    return len(value) > 0


def aligned(scores: Scores, *names: str) -> dict[str, tuple[Any, ...]]:
    """Rows that have all of these readings, matched by id.

    Example:
        >>> aligned({"nll": [1.0, 2.0], "wrong_nll": [[3.0], []]}, "nll", "wrong_nll")
        {'0': (1.0, [3.0])}
    """
    tables = [table(scores, name) for name in names]
    rows = [row for row in tables[0] if all(row in other for other in tables[1:])]
    return {row: tuple(each[row] for each in tables) for row in rows}


def unmeasurable(why: str) -> Value:
    """The value of a metric that cannot be measured, and the reason."""
    return Value(mean=None, note=f"not measurable: {why}")


def average(per_row: Mapping[str, float], scores: Scores, *names: str) -> Value:
    """The mean over rows, or "not measurable" when there is nothing sound to average.

    Args:
        per_row: Row id -> this row's share.
        scores: The readings it was made from,
        names: and which of them, so that the note can say how many rows lack one.

    Returns:
        Mean and rows. A share that is not a number makes the whole unmeasurable: a mean over the
        rows on which a model happened not to break would flatter it.
    """
    needs = " and ".join(names)
    if not per_row:
        return unmeasurable(f"no row has {needs}")
    broken = [row for row, share in per_row.items() if not math.isfinite(share)]
    if broken:
        return unmeasurable(f"{len(broken)} of {len(per_row)} rows are not a number ({broken[0]})")
    note = lacking(per_row, scores, *names)
    return Value(mean=fmean(per_row.values()), per_row=dict(per_row), note=note)


def lacking(per_row: Sized, scores: Scores, *names: str) -> str:
    """How many rows lack one of these readings; empty where none does."""
    rows = max(len(asked(scores, name)) for name in names)
    left_out = rows - len(per_row)
    return f"{left_out} of {rows} rows have no {' and '.join(names)}" if left_out else ""


def matched(
    first: Mapping[str, float], second: Mapping[str, float], *, allow_unmatched: bool
) -> None:
    """Check that two models were measured on the same rows.

    Raises:
        ExpungeError: E-DATA-013 when they were not and that is not allowed.
    """
    odd = sorted(first.keys() ^ second.keys())
    if odd and not allow_unmatched:
        raise ExpungeError(
            "E-DATA-013",
            f"{len(odd)} rows were measured on one of the two models only, first {odd[0]!r}.",
            "both models measured on the same rows: a comparison of different rows says nothing.",
            "Measure both on the same forget set, or compare them anyway with --allow-unmatched.",
        )
