"""What a true answer names, and how much of it another text names too."""

import re
from collections.abc import Sequence
from statistics import fmean

from expunge.text.match import ENTITY_WORDS, contains
from expunge.text.normalise import all_words

_PART = re.compile(r"\d[\d.,/:-]*\d|\d|[^\W\d_][\w'’-]*|\S")
_LINKS = frozenset("of the de da di du van von der den al la le".split())  # noqa: SIM905
"""Small words that may stand inside a name."""
_OPENERS = frozenset({
    "a", "an", "and", "as", "at", "but", "by", "for", "from", "he", "her", "his", "however", "i",
    "if", "in", "it", "its", "no", "of", "on", "or", "our", "she", "since", "so", "that", "the",
    "their", "there", "these", "they", "this", "those", "to", "was", "we", "were", "when", "where",
    "while", "who", "with", "yes", "you",
})  # fmt: skip
"""Words that begin a sentence with a capital and name nothing."""


def entities(text: str) -> tuple[str, ...]:
    """Names and numbers of a text, each once, in order: runs of capitalised words, and figures.

    The rule knows no language: a common noun in capitals is taken for a name, a name in small
    letters is missed. The first word of a sentence counts unless it is a small word.

    Example:
        >>> entities("She met Ada Birk in Rome in 1931, and the Order of Malta.")
        ('Ada Birk', 'Rome', '1931', 'Order of Malta')
    """
    found: list[str] = []
    run: list[str] = []
    for part in [*_PART.findall(text), ""]:
        if part[:1].isupper() or (run and part in _LINKS):
            run.append(part)
            continue
        found.append(_name(run))
        run = []
        if part[:1].isdigit():
            found.append(part)
    return tuple(dict.fromkeys(name for name in found if name))


def coverage(output: str, forms: Sequence[str]) -> float | None:
    """Which share of the entities of the true answer an output names.

    Args:
        output: What the model said.
        forms: The true answer and its other forms, the answer first.

    Returns:
        For an answer of at most six words, itself the entity: 1 or 0, whichever form is named.
        For a longer one the share of its `entities`; None where it has none.
    """
    if len(all_words(forms[0])) <= ENTITY_WORDS:
        return float(contains(output, forms))
    named = entities(forms[0])
    return fmean(float(contains(output, [name])) for name in named) if named else None


def _name(run: Sequence[str]) -> str:
    """A run of words without the small ones at both its ends."""
    words = list(run)
    while words and words[-1] in _LINKS:
        words.pop()
    while words and words[0].lower() in _OPENERS:
        words.pop(0)
    return " ".join(words)
