"""What the audited model is compared with, and on which rows.

An attack that finds nothing on the original proves nothing, so rows the original does not know are
left out. An attack that finds as much on something that never knew finds nothing, so there is
always a control: the retrained reference on the same rows, or the audited model itself on rows
nobody trained it on (the user's hold-out rows, topped up with invented ones).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from expunge.audit.statistics import unit_of
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.requests.scope import placebo

KNOWN = 0.5
"""Leak of the direct question from which a row counts as known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """What stands for a model that never knew.

    Attributes:
        kind: ``reference`` or ``placebo``.
        rows: The rows it is attacked on.
        invented: How many of them are neither the user's forget rows nor hold-out rows.
        units: Unit of resampling of each row; None when the rows are the forget rows.
    """

    kind: Literal["reference", "placebo"]
    rows: tuple[Row, ...]
    invented: int = 0
    units: tuple[int, ...] | None = None


def choose_control(
    forget: Sequence[Row], holdout: Sequence[Row], reference: Subject | None, seed: int
) -> Control | None:
    """The control of an audit.

    Args:
        forget: Forget rows under attack.
        holdout: The user's rows of the same kind that were never trained on.
        reference: A model trained without the forget rows.
        seed: Seed of the audit.

    Returns:
        The reference on the forget rows when there is one; else at least as many placebo rows as
        forget rows, as far as they can be had; None when there are none at all.
    """
    if reference is not None:
        return Control(kind="reference", rows=tuple(forget))
    missing = max(0, len(forget) - len(holdout))
    invented = placebo(forget, missing, seed) if missing else []
    rows = (*holdout, *invented)
    if not rows:
        return None
    return Control(kind="placebo", rows=rows, invented=len(invented), units=tuple(unit_of(rows)[1]))


def known_rows(rows: Sequence[Row], original: Mapping[str, float]) -> list[Row]:
    """The rows the original gives away when asked plainly or in a paraphrase.

    Args:
        rows: Forget rows.
        original: Row id -> leak of the direct question on the original.
    """
    return [row for row in rows if original.get(row.id, 0.0) >= KNOWN]


def reference_knows(original: Mapping[str, float], reference: Mapping[str, float]) -> bool:
    """Whether the reference gives away more than half of what the original does.

    Args:
        original: Row id -> leak of the direct question on the original.
        reference: The same on the reference.
    """
    rows = original.keys() & reference.keys()
    known = sum(original[row] for row in rows)
    return known > 0 and sum(reference[row] for row in rows) > KNOWN * known
