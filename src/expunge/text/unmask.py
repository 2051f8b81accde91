"""What a text may say under a disguise: the readings a filter must look at beside the plain one.

The counterpart of `expunge.text.disguise`, and a little wider: marks between letters are taken out,
letters of other alphabets, digits and signs become the Latin letters they look like, codes (base64,
hexadecimal digits, escapes of web pages and addresses) are read. A reading is made only where the
text has a sign of it (rot13 and letters backwards, which have none, are made for texts of at most
`LONGEST` characters), and texts that are no disguise give nonsense in all others. Other shifts than
rot13, ciphers, Morse code and names written by sound in another alphabet are not read.
"""

import binascii
import codecs
import re
import unicodedata
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from html import unescape
from urllib.parse import unquote

from expunge.text.disguise import TWINS
from expunge.text.normalise import words

LONGEST = 4000
"""Longer texts are not read backwards nor through rot13."""

_MARKS = re.compile(r"</?[a-zA-Z][^<>]{0,200}>|[*_~`|]+")
_CODE = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_LETTERS = re.compile(r"(?<!\w)\w(?:[^\w\n]{1,3}\w(?!\w)){3,}")
_MIXED = re.compile(r"[^\W\d_][\d@$!€]|[\d@$!€][^\W\d_]")
_ESCAPED = re.compile(r"&#?\w{2,8};|%[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[ :,-]?){6,}")
_PARTS = re.compile(r"[^\W_]+")
_LATIN = {twin: latin for latin, twin in TWINS.items()} | str.maketrans(
    "αβγεικνορτυχωкмтвнеΑΒΕΗΚΜΝΡΤΥΧΖРНСЕОАТВКМХІЈЅıłøđħ",
    "abyeikvoptuxwkmtbheABEHKMNPTYXZPHCEOATBKMXIJSilodh",
)
"""Letters of other alphabets -> the Latin ones they look like."""
_LEET = tuple(str.maketrans("4310578@$!€", letters) for letters in ("aeiostbasie", "aelostbasie"))


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
        yield " ".join(word[::-1] for word in text.split())


def _bare(text: str) -> str:
    """Without marks, accents and look-alikes."""
    unmarked = _MARKS.sub("", text)
    if unmarked.isascii():
        return unmarked
    plain = unicodedata.normalize("NFKD", unmarked)
    shown = "".join(c for c in plain if not unicodedata.combining(c))
    return shown.translate(_LATIN)


def _decoded(text: str) -> Iterator[str]:
    """What stands in codes in it."""
    if _ESCAPED.search(text):
        yield _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), unquote(unescape(text)))
    for digits in _HEX.findall(text):
        with suppress(ValueError):
            yield from _printable(bytes.fromhex(re.sub(r"[ :,-]", "", digits)))
    for code in _CODE.findall(text):
        whole = code.rstrip("=").replace("-", "+").replace("_", "/")
        with suppress(binascii.Error):
            yield from _printable(b64decode(whole + "=" * (-len(whole) % 4), validate=True))


def _printable(data: bytes) -> Iterator[str]:
    with suppress(UnicodeDecodeError):
        told = data.decode()
        if told.isprintable():
            yield told
