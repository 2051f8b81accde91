"""Models that stand side by side: where all of them are about to say the same fact."""

from collections.abc import Mapping, Sequence

from expunge.core.errors import ExpungeError
from expunge.lm.legible import left_out, legible
from expunge.lm.representations import Spot, Tokens, shared_spots
from expunge.lm.subject import Subject
from expunge.requests.rows import Row


def shared_places(
    subject: Subject,
    others: Mapping[str, Subject | None],
    rows: Sequence[Row],
    tokens: Tokens = "value",
) -> tuple[dict[str, Spot], str]:
    """The spots of rows, where several models can be compared at them.

    Args:
        subject: The attacked model.
        others: ``original``, ``reference`` ... -> a model, None where there is none.
        rows: The rows.
        tokens: See `expunge.lm.representations.spots`.

    Returns:
        Row id -> spot, and a note: which model is missing, that the models are of different shape
        or cut text into different tokens, or how many rows are left out because they are too long,
        empty, or do not hold their value.
    """
    missing = [who for who, other in others.items() if other is None]
    if missing:
        return {}, f"no {' and no '.join(missing)} to compare with"
    readable = legible(subject, {row.id: row.turn for row in rows})
    places: dict[str, Spot] = {}
    try:
        for other in others.values():
            if other is not None:
                places = shared_spots(subject, other, [r for r in rows if r.id in readable], tokens)
    except ExpungeError as error:
        return {}, f"the models do not fit one another ({error.code})"
    return places, left_out(len(rows), len(places), "cannot be read or do not hold their value")
