"""What a text may say under a disguise: the readings a filter must look at beside the plain one.

The counterpart of `expunge.text.disguise`: marks between letters are taken out, letters of other
alphabets and digits become the Latin letters they look like, codes are read. A reading is made only
where the text has a sign of it (rot13 and reversed letters, which have none, are made for texts of
at most `LONGEST` characters), and texts that are no disguise give nonsense in all others.
"""

import base64
import binascii
import codecs
import re
import unicodedata
from collections.abc import Iterator

from expunge.text.disguise import TWINS
from expunge.text.normalise import words

LONGEST = 4000
"""Longer texts are not read backwards nor through rot13."""

_MARKS = re.compile(r"</?[a-zA-Z][^<>]{0,200}>|[*_~`|]+")
_CODE = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_LETTERS = re.compile(r"(?<!\w)\w(?:[^\w\n]{1,3}\w(?!\w)){3,}")
_MIXED = re.compile(r"[^\W\d_]\d|\d[^\W\d_]")
_PARTS = re.compile(r"[^\W_]+")
_LATIN = {twin: latin for latin, twin in TWINS.items()}
_LEET = tuple(str.maketrans("4310578", letters) for letters in ("aeiostb", "aelostb"))


def readings(text: str) -> Iterator[list[str]]:
    """The words of a text, then those of what it may say in disguise.

    Example:
        >>> [" ".join(one) for one in readings("Wh0 w4s M1r4?")][1]
        'who was mira'
        >>> ["mira", "voss"] in list(readings("TWlyYSBWb3Nz"))
        True
    """
    plain = words(text)
    yield plain
    seen = {tuple(plain)}
    for other in _others(text):
        read = words(other)
        if read and tuple(read) not in seen:
            seen.add(tuple(read))
            yield read


def spelled(text: str) -> Iterator[str]:
    """Letters that stand one by one (``M i r a``), joined: lower case, nothing between them."""
    for run in _LETTERS.finditer(_bare(text)):
        yield squeezed(run[0])


def squeezed(text: str) -> str:
    """The letters and digits of a text, lower case, nothing between them.

    Example:
        >>> squeezed("Mira Voss-Hale")
        'miravosshale'
    """
    return "".join(_PARTS.findall(unicodedata.normalize("NFKC", text).lower()))


def _others(text: str) -> Iterator[str]:
    bare = _bare(text)
    yield bare
    if _MIXED.search(bare):
        for table in _LEET:
            yield bare.translate(table)
    yield from _decoded(text)
    if len(text) <= LONGEST:
        yield codecs.encode(text, "rot13")
        yield text[::-1]


def _bare(text: str) -> str:
    """Without marks, accents and look-alikes."""
    unmarked = _MARKS.sub("", text)
    if unmarked.isascii():
        return unmarked
    plain = unicodedata.normalize("NFKD", unmarked)
    shown = "".join(c for c in plain if not unicodedata.combining(c))
    return shown.translate(_LATIN)


def _decoded(text: str) -> Iterator[str]:
    """What stands in base64 in it."""
    for code in _CODE.findall(text):
        whole = code.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            told = base64.b64decode(whole + "=" * (-len(whole) % 4), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
        if told.isprintable():
            yield told
