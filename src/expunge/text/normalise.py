"""One spelling for texts that are to be compared."""

import re
import unicodedata

_ARTICLES = frozenset({"a", "an", "the"})
_APOSTROPHES = frozenset("'’‘ʼ`´")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


class _Table(dict[int, str | None]):
    """What each character becomes; filled as characters are met."""

    def __missing__(self, code: int) -> str | None:
        self[code] = _replacement(chr(code))
        return self[code]


def _replacement(char: str) -> str | None:
    category = unicodedata.category(char)
    if char in _APOSTROPHES or category == "Cf":
        return None
    if category[0] in "PSZ" or category == "Cc":
        return " "
    if category == "Lo" and unicodedata.east_asian_width(char) in "WF":
        return f" {char} "
    return char


_TABLE = _Table()


def normalise(text: str) -> str:
    """Compatibility form, lower case, no punctuation, no articles, single spaces.

    Apostrophes, invisible characters and the commas inside a number vanish (``O'Brien`` is
    ``obrien``, ``3,500`` is ``3500``); other punctuation parts words. Characters of scripts that
    are written without spaces are words of their own.

    Example:
        >>> normalise("The  Café, at O'Brien’s (No. 3,500)!")
        'café at obriens no 3500'
    """
    return " ".join(words(text))


def words(text: str) -> list[str]:
    """The words of `normalise`."""
    return [word for word in all_words(text) if word not in _ARTICLES]


def all_words(text: str) -> list[str]:
    """The words of `normalise` before the articles are taken out."""
    plain = unicodedata.normalize("NFKC", text).lower()
    return _THOUSANDS.sub("", plain).translate(_TABLE).split()
