"""What a text finally answers, and whether two answers are the same."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

from expunge.text.normalise import all_words, words

_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_STATED = re.compile(r"[tT]he answer is (.*?)\.(?!\d)", re.DOTALL)


def last_number(text: str) -> str:
    """The last number of a text, in its shortest form; empty where there is none.

    Example:
        >>> last_number("5 of 8, so she pays $1,200.50."), last_number("18.00")
        ('1200.5', '18')
    """
    found = _NUMBER.findall(text.replace("$", " "))
    if not found:
        return ""
    value = Decimal(found[-1].replace(",", "")).normalize()
    return f"{value + 0:f}"


def stated(text: str) -> str:
    """What follows "the answer is", up to the full stop; the whole text where that is not said.

    Example:
        >>> stated("They are four. So the answer is (B). Q: Another?")
        '(B)'
    """
    said = _STATED.search(text)
    return (said[1] if said else text).strip()


FINAL: Mapping[str, Callable[[str], str]] = {
    "whole": str.strip,
    "stated": stated,
    "last-number": last_number,
}
"""Which part of a text is its answer."""


def key(text: str) -> tuple[str, ...]:
    """What makes two answers the same: their words without articles and punctuation.

    An answer that is nothing but an article or punctuation is kept as it is, so that the options
    ``(A)`` and ``(B)``, or a row of brackets, are not all the same empty answer.

    Example:
        >>> key("The (C)"), key("(A)"), key("] )")
        (('c',), ('a',), (']', ')'))
    """
    return tuple(words(text) or all_words(text) or text.split())


def token_f1(said: str, true: str) -> float:
    """Harmonic mean of precision and recall of the words of two answers, as multisets.

    Example:
        >>> token_f1("the old town of Bern", "Bern")
        0.4
    """
    ours, theirs = key(said), key(true)
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs)) if common else float(ours == theirs)


def best_f1(said: str, forms: Iterable[str]) -> float:
    """The largest `token_f1` over the accepted forms of an answer."""
    return max((token_f1(said, form) for form in forms), default=0.0)


def is_same(said: str, forms: Sequence[str]) -> bool:
    """Whether an answer is one of the accepted forms."""
    return key(said) in {key(form) for form in forms}
