"""Ratings of 1, 2 or 3 that a judge gave, as a number between 0 and 1."""

from collections.abc import Mapping
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import asked, average, table, unmeasurable

GRADES = (1, 2, 3)


def graded(scores: Mapping[str, Any], need: str) -> Value:
    """The mean of (rating - 1) / 2.

    Args:
        scores: The readings.
        need: Which of them: row -> 1, 2 or 3; None where the judge gave none.

    Returns:
        The mean in [0, 1]; a rating outside the scale makes it unmeasurable.
    """
    ratings = table(scores, need)
    if not ratings:
        lacking = len(asked(scores, need))
        told = f"the judge rated none of {lacking} rows" if lacking else "no judge was asked"
        return unmeasurable(f"it needs {need}, and {told}")
    odd = {row: rating for row, rating in ratings.items() if rating not in GRADES}
    if odd:
        row, rating = next(iter(odd.items()))
        return unmeasurable(f"the {need} {rating!r} of row {row} is none of 1, 2, 3")
    return average({row: (rating - 1) / 2 for row, rating in ratings.items()}, scores, need)
