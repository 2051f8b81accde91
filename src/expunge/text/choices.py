"""Which of several options a text chooses."""

import re
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_CALLED = re.compile(
    r"(?i:(?:answer|choice|option)(?: \w+)? is:?)\s*(?:\(([A-Za-z])\)|([A-Z])\b(?!\s+\w))"
)
_FIRST = re.compile(r"\(?([B-HJ-Zb-hj-z]|[AaIi](?!\s+\w))(?![\w'’])")
_ALONE = re.compile(r"(?<![\w'’])(?:\(([A-Z])\)|([A-Z])(?=[.:,;]|\s*$))")


def letter(text: str, count: int) -> int | None:
    """The option a text names by its letter.

    In this order: the first letter that the text calls the answer ("the best answer is: (C)"); the
    letter the text begins with; the first letter that stands alone, in brackets or before
    punctuation. A letter inside a word never counts, nor does the article
    "A" before a word.

    Args:
        text: What a model said.
        count: Number of options; letters beyond them do not count.

    Returns:
        Index of the option, or None when the text names none.

    Example:
        >>> letter("B) because ...", 4), letter("The best answer is: (C).", 4), letter("Both", 4)
        (1, 2, None)
    """
    stripped = text.strip()
    called = [match[1] or match[2] for match in _CALLED.finditer(stripped)]
    first = [match[1] for match in [_FIRST.match(stripped)] if match]
    alone = [match[1] or match[2] for match in _ALONE.finditer(stripped)]
    named = [name.upper() for name in (*called, *first, *alone)]
    known = [LETTERS.index(name) for name in named if LETTERS.index(name) < count]
    return known[0] if known else None


def listed(names: Sequence[str], options: Sequence[str]) -> str:
    """Options under one another, each after its name.

    Raises:
        ValueError: When there are not as many names as options.
    """
    return "\n".join(f"{name}. {text}" for name, text in zip(names, options, strict=True))
