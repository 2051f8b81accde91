"""Rows that give no ``answer`` get the one that their wording tells, all roles together.

A sentence without a marked value counts as leaked when half of its words come back, and template
words alone do that for a third of the rows. Where the value can be told, only the value counts.
Control and forget rows must be judged alike, so it is told for all roles or for none. The rows also
get the ``attribute`` that all roles together tell, so that none lacks the rival values of others
because the wordings that connect them are in another role.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from expunge.requests.answers import with_answers
from expunge.requests.rows import Row
from expunge.requests.scope import attributes
from expunge.text.match import ENTITY_WORDS
from expunge.text.normalise import all_words

ENOUGH = 0.5
"""Share of the forget rows judged by overlap whose answer must be told, or none is used."""

UNLIKE = 0.1
"""Largest difference, between hold-out and forget rows, of the share judged by overlap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Telling:
    """The rows of an audit with the answers that were told.

    Attributes:
        roles: Role -> its rows, ids and order as given.
        told: Forget rows whose answer was told.
        left_out: Hold-out rows left out because too few forget rows are judged like them.
    """

    roles: Mapping[str, tuple[Row, ...]]
    told: int = 0
    left_out: int = 0


def tell(roles: Mapping[str, Sequence[Row]]) -> Telling:
    """Tell the answers of the rows that give none.

    Args:
        roles: ``forget retain neighbour holdout`` -> rows; each shows the others' wordings.
    """
    given = {role: tuple(rows) for role, rows in roles.items()}
    rest = iter(_answered([row for rows in given.values() for row in rows]))
    found = {role: tuple(islice(rest, len(rows))) for role, rows in given.items()}
    told = sum(map(_is_told, given["forget"], found["forget"]))
    still = sum(not _is_literal(row) for row in found["forget"])
    if told < ENOUGH * (told + still):
        found, told = given, 0
    control = comparable(found["holdout"], found["forget"])
    left_out = len(found["holdout"]) - len(control)
    return Telling(roles={**found, "holdout": control}, told=told, left_out=left_out)


def _answered(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows with answers and attributes; the rows themselves where no answer can be told."""
    answered = with_answers(rows)
    if not any(map(_is_told, rows, answered)):
        return rows
    groups = attributes(answered)
    return [replace(row, meta={"attribute": groups[row.id], **row.meta}) for row in answered]


def comparable(holdout: Sequence[Row], forget: Sequence[Row]) -> tuple[Row, ...]:
    """Hold-out rows of which about as many as of the forget rows are judged literally.

    The first rows of the kind that is too frequent are kept, in the order given.
    """
    wanted = _literal_share(forget)
    if not holdout or abs(_literal_share(holdout) - wanted) <= UNLIKE:
        return tuple(holdout)
    literal = _literal_share(holdout) * len(holdout)
    size = min(
        literal / wanted if wanted else len(holdout),
        (len(holdout) - literal) / (1 - wanted) if wanted < 1 else len(holdout),
    )
    room = {True: round(size * wanted), False: round(size * (1 - wanted))}
    kept: list[Row] = []
    for row in holdout:
        kind = _is_literal(row)
        if room[kind]:
            room[kind] -= 1
            kept.append(row)
    return tuple(kept)


def _is_told(given: Row, found: Row) -> bool:
    return given.answer != found.answer


def _is_literal(row: Row) -> bool:
    """Whether the value is looked for as a whole, rather than by overlap."""
    return len(all_words(row.value)) <= ENTITY_WORDS


def _literal_share(rows: Sequence[Row]) -> float:
    return sum(map(_is_literal, rows)) / len(rows)
