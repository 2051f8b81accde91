"""Where sentences end, with their places in the text: nothing is split off and joined again.

The rule: a sentence ends behind ``.``, ``!``, ``?`` with closing quotes and brackets and one space,
and behind their East Asian forms; a paragraph ends it too. A full stop behind one or two letters,
or behind a known abbreviation, ends none. What is an end stays one whatever text comes behind it.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

_MARK = r"[.!?]+[\"'”’)\]]*\s|[。！？]"
_END = re.compile(rf"{_MARK}|\n[ \t\r]*\n")
_LINE = re.compile(rf"{_MARK}|\n")
_SHORT = frozenset({
    "apr", "aug", "ave", "blvd", "capt", "corp", "dec", "dept", "est", "feb", "gen", "gov", "hon",
    "inc", "jan", "jul", "jun", "lieut", "mar", "messrs", "mlle", "mme", "mrs", "nov", "oct",
    "prof", "rev", "sen", "sep", "sept", "sgt", "tel",
})  # fmt: skip
"""Words of three letters and more that end with a full stop and no sentence."""


def ends(text: str, most: int | None = None, *, lines: bool = False) -> Iterator[int]:
    """Where sentences end, in order; the end of the text itself is left out unless it is one.

    Args:
        text: The text.
        most: Look only at so many characters.
        lines: Whether every line ends a sentence.
    """
    pattern = _LINE if lines else _END
    for match in pattern.finditer(text, 0, len(text) if most is None else most):
        word = re.split(r"\W", text[max(0, match.start() - 16) : match.start()])[-1].lower()
        if not (match[0].rstrip() == "." and word.isalpha() and (len(word) < 3 or word in _SHORT)):
            yield match.end()


def spans(text: str, *, lines: bool = False) -> list[tuple[int, int]]:
    """The sentences of a text as (start, end), with the space behind them; they cover the text.

    Example:
        >>> text = "Dr. Ada met J. R. Birk. Why? Nobody knows."
        >>> [text[a:b] for a, b in spans(text)]
        ['Dr. Ada met J. R. Birk. ', 'Why? ', 'Nobody knows.']
    """
    borders = [0, *ends(text, lines=lines)]
    if borders[-1] < len(text):
        borders.append(len(text))
    return list(pairwise(borders))
