"""Texts in disguise: a reader can still make them out, a filter that looks for words may not.

Typing errors (``slips``, ``typos``, ``shuffled``, ``truncated``), letters in another shape
(``case``, ``leetspeak``, ``homoglyphs``), what is put between letters (``spacing``,
``zero_width``, ``markdown``, ``html``), and codes (``base64``, ``rot13``, ``reversed``). All but
the codes work on each word by itself, so names are disguised wherever they stand.
"""

import base64
import codecs
import re
from collections.abc import Callable, Mapping
from math import ceil
from typing import TYPE_CHECKING

from expunge.core.rng import generator

if TYPE_CHECKING:
    from numpy.random import Generator

Disguise = Callable[[str, "Generator"], str]

_WORD = re.compile(r"[^\W\d_]+")
_SHORT = 3
"""Words of fewer letters get no typing error: they would not be made out."""

_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_LEET = str.maketrans("aeiostAEIOST", "431057431057")
TWINS = str.maketrans(
    "acdeghijlnopqsuvwxyABCEGHIJKMNOPSTUVWXYZ",
    "асԁеɡһіјӏոорԛѕսѵԝхуАВСЕԌНІЈКМΝОРЅТՍѴԜХУΖ",
)
"""Latin letters and those of other alphabets that look the same."""

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"


def disguise(text: str, form: str, seed: int) -> str:
    """A text in one of the `FORMS`.

    Args:
        text: Any text.
        form: Name of the form.
        seed: Decides which letters are struck, where something is decided.

    Example:
        >>> disguise("Mira Voss", "leetspeak", 0), disguise("Mira Voss", "reversed", 0)
        ('M1r4 V055', 'ssoV ariM')
    """
    return FORMS[form](text, generator(seed, "disguise", form, text))


def _each_word(change: Disguise, *, least: int = 1) -> Disguise:
    """A change of words as one of texts; words of fewer letters stay."""

    def changed(text: str, draw: "Generator") -> str:
        return _WORD.sub(
            lambda word: change(word[0], draw) if len(word[0]) >= least else word[0], text
        )

    return changed


def _neighbours() -> dict[str, str]:
    """Letter -> the letters on the keys around its own."""
    places = {
        letter: (x + shift, y)
        for y, (row, shift) in enumerate(zip(_KEYS, (0.0, 0.25, 0.75), strict=True))
        for x, letter in enumerate(row)
    }
    return {
        letter: "".join(
            other
            for other, (x, y) in places.items()
            if other != letter and abs(x - own_x) <= 1 and abs(y - own_y) <= 1
        )
        for letter, (own_x, own_y) in places.items()
    }


_AROUND = _neighbours()


def _slipped(word: str, draw: "Generator") -> str:
    """One letter typed on a key beside its own."""
    hit = [at for at, letter in enumerate(word) if letter.lower() in _AROUND]
    if not hit:
        return word
    at = hit[draw.integers(len(hit))]
    around = _AROUND[word[at].lower()]
    new = around[draw.integers(len(around))]
    return word[:at] + (new.upper() if word[at].isupper() else new) + word[at + 1 :]


def _mistyped(word: str, draw: "Generator") -> str:
    """Two letters in the wrong order, one left out, or one doubled; the first letter stays."""
    at, kind = 1 + draw.integers(len(word) - 1), draw.integers(3)
    if kind == 0 and word[at : at + 2] != word[at : at + 2][::-1]:
        return word[:at] + word[at : at + 2][::-1] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    return word[: at + 1] + word[at:]


def _shuffled(word: str, draw: "Generator") -> str:
    """The inner letters in another order, if there is one."""
    inner = word[1:-1]
    mixed = "".join(inner[at] for at in draw.permutation(len(inner)))
    turned = next((inner[n:] + inner[:n] for n in range(1, len(inner)) if inner[n] != inner[0]), "")
    return word[0] + (turned if mixed == inner and turned else mixed) + word[-1]


def _truncated(word: str, _: "Generator") -> str:
    return word[: min(len(word) - 1, ceil(len(word) * 2 / 3))]


def _alternating(word: str, _: "Generator") -> str:
    return "".join(c.upper() if at % 2 else c.lower() for at, c in enumerate(word))


def _put_in(before: str, behind: str = "") -> Disguise:
    """Marks around the end of each word."""

    def marked(word: str, draw: "Generator") -> str:
        at = 1 + draw.integers(len(word) - 1)
        return word[:at] + before + word[at:] + behind

    return marked


def _with_invisible(word: str, draw: "Generator") -> str:
    sign = _INVISIBLE[draw.integers(len(_INVISIBLE))]
    return _put_in(sign)(word, draw)


FORMS: Mapping[str, Disguise] = {
    "slips": _each_word(_slipped, least=_SHORT),
    "typos": _each_word(_mistyped, least=_SHORT),
    "shuffled": _each_word(_shuffled, least=_SHORT + 1),
    "truncated": _each_word(_truncated, least=_SHORT + 1),
    "case": _each_word(_alternating),
    "leetspeak": lambda text, _: text.translate(_LEET),
    "homoglyphs": lambda text, _: text.translate(TWINS),
    "spacing": _each_word(lambda word, _: " ".join(word)),
    "zero_width": _each_word(_with_invisible, least=2),
    "markdown": _each_word(_put_in("**", "**"), least=2),
    "html": _each_word(_put_in("<b>", "</b>"), least=2),
    "base64": lambda text, _: base64.b64encode(text.encode()).decode(),
    "rot13": lambda text, _: codecs.encode(text, "rot13"),
    "reversed": lambda text, _: text[::-1],
}
"""Name of a form -> what it makes of a text. Typing errors leave words of two letters alone, and
``shuffled`` and ``truncated`` those of three."""
