"""What to keep when the user says nothing about it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from itertools import islice
from typing import Literal

from expunge.requests.rows import Row

Origin = Literal["given", "holdout", "bundled"]


def neutral_rows(n: int) -> list[Row]:
    """Up to ``n`` rows of plain general knowledge, written for this project.

    They name no private person, so training on them restores nothing that was to be forgotten.

    Returns:
        The first ``n`` of the bundled sentences as running text, in a fixed order that mixes
        their subjects; all of them when there are fewer.
    """
    return [
        Row(id=f"neutral-{number:03}", role="retain", text=line)
        for number, line in enumerate(islice(_lines(), n), start=1)
    ]


def choose_retain(retain: Sequence[Row], holdout: Sequence[Row]) -> tuple[list[Row], Origin]:
    """The rows to keep, and where they come from.

    Args:
        retain: The user's own; if there are any, they are taken.
        holdout: Rows never trained on; the second choice, as they look most like the forget set.

    Returns:
        The rows, all in the role ``retain``, and their origin; the bundled text is the last
        choice.
    """
    if retain:
        return list(retain), "given"
    if holdout:
        return [replace(row, role="retain") for row in holdout], "holdout"
    return neutral_rows(len(_lines())), "bundled"


@cache
def _lines() -> tuple[str, ...]:
    """The bundled sentences, taken alternately from the subjects the file is ordered by."""
    text = resources.files(__package__).joinpath("neutral.txt").read_text(encoding="utf-8")
    groups = [group.split("\n") for group in text.strip().split("\n\n")]
    most = max(len(group) for group in groups)
    return tuple(group[i] for i in range(most) for group in groups if i < len(group))
