"""Multiple-choice questions as text: options under letters, in any order."""

from collections.abc import Sequence
from typing import Any

from expunge.text.choices import LETTERS

OPENING = "Answer:"
"""What stands before the letter."""


def lettered(asked: str, options: Sequence[str]) -> str:
    """A question with its options, one a line, up to where the answer begins.

    Example:
        >>> print(lettered("Which floats?", ["iron", "cork"]), end="")
        Which floats?
        A. iron
        B. cork
    """
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([asked, *lines, ""])


def shown(asked: str, options: Sequence[str], correct: int) -> str:
    """A question with its options and the letter that answers it, as an example for others."""
    return f"{lettered(asked, options)}{OPENING} {LETTERS[correct]}"


def turned(count: int, by: int) -> list[int]:
    """Which option stands under each letter after a cyclic shift.

    Example:
        >>> turned(4, 1)
        [1, 2, 3, 0]
    """
    return [(place + by) % count for place in range(count)]


def question(asked: str, options: Sequence[str], *correct: int) -> dict[str, Any]:
    """The ``meta`` of a row that is a multiple-choice question.

    Args:
        asked: All that stands before the options: instruction, examples, the question.
        options: The answers on offer.
        *correct: Indices of those that are true.
    """
    return {
        "asked": asked,
        "options": list(options),
        "correct": list(correct),
        "opening": OPENING,
    }
