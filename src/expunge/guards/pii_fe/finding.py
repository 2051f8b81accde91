"""Identifiers in a text: where they stand, of which kind they are, and how sure that is.

A text is looked at segment by segment (`Search.segments`): a segment ends with a sentence or a
paragraph, and a text without either is cut between words. What stands in one segment is found from
that segment alone, so a text that comes in pieces gives what the whole text gives.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from expunge.requests.cues import CUED, kind_of, values_of
from expunge.text.sentences import ends

CAP = 512
"""Longest segment without an end of its own, in characters."""

LOOK = 256
"""Characters behind a cut that are known before it is made; longer than any pattern's value."""

AROUND = 0.35
"""What a word that announces the kind adds to a score."""


class Span(NamedTuple):
    """One identifier in a text.

    Attributes:
        start: Its first character.
        end: Behind its last one.
        kind: What it is.
        score: How sure that is, in [0, 1].
        source: Who found it: ``list``, ``pattern``, ``cue``, ``presidio`` or ``model``.
    """

    start: int
    end: int
    kind: str
    score: float
    source: str


Finder = Callable[[str], Iterable[Span]]
"""Finds identifiers in one segment."""


def luhn(digits: str) -> bool:
    """Whether the last digit of a card number fits the others.

    Example:
        >>> luhn("4111111111111111"), luhn("4111111111111112")
        (True, False)
    """
    doubled = [int(one) * (1 + at % 2) for at, one in enumerate(reversed(digits))]
    return sum(one - 9 * (one > 9) for one in doubled) % 10 == 0


def mod97(iban: str) -> bool:
    """Whether the check digits of an IBAN fit.

    Example:
        >>> mod97("GB82WEST12345698765432"), mod97("GB82WEST12345698765433")
        (True, False)
    """
    moved = iban[4:] + iban[:4]
    return int("".join(str(int(one, 36)) for one in moved)) % 97 == 1


def _weighed(digits: str, weights: Sequence[int]) -> int:
    return sum(int(one) * weight for one, weight in zip(digits, weights, strict=True))


def _card(value: str) -> bool:
    digits = _digits(value)
    return bool(_ISSUED.fullmatch(digits)) and luhn(digits)


def _bsn(value: str) -> bool:
    """Dutch citizen number: the test of eleven."""
    digits = _digits(value)
    return int(digits) > 0 and _weighed(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def _nhs(value: str) -> bool:
    """British health number: modulo eleven."""
    digits = _digits(value)
    check = 11 - _weighed(digits[:9], range(10, 1, -1)) % 11
    return int(digits) > 0 and check % 11 == int(digits[9]) and check != 10


def _dni(value: str) -> bool:
    """Spanish identity number: the letter fits the number."""
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(_digits(value)) % 23] == value[-1].upper()


def _nir(value: str) -> bool:
    """French social security number: the key is what is lacking to a multiple of 97."""
    digits = _digits(value)
    return 97 - int(digits[:13]) % 97 == int(digits[13:])


def _cpf(value: str) -> bool:
    """Brazilian taxpayer number: two check digits modulo eleven."""
    digits = _digits(value)
    for at in (9, 10):
        check = _weighed(digits[:at], range(at + 1, 1, -1)) * 10 % 11 % 10
        if check != int(digits[at]):
            return False
    return len(set(digits)) > 1


def _ssn(value: str) -> bool:
    area, group, serial = value[:3], value[4:6], value[7:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _ip(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return any(char.isalnum() for char in value)


def _phone(value: str) -> bool:
    return 8 <= len(_digits(value)) <= 15


def _any(value: str) -> bool:
    return bool(value)


def _digits(value: str) -> str:
    return "".join(char for char in value if char in "0123456789")


_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[0-5]|2[2-7]|35|6\d)\d{14}|6\d{18}|3[47]\d{13}|3[068]\d{12}"
)
"""How long card numbers with which beginnings are."""


class _Shape(NamedTuple):
    kind: str
    score: float
    pattern: re.Pattern[str]
    fits: Callable[[str], bool] = _any


_SSN = re.compile(r"(?<![\w-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![\w-])")

_SHAPES = (
    _Shape(
        "email",
        1.0,
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[\w-]{1,63}"),
    ),
    _Shape(
        "credit card", 1.0, re.compile(r"(?<![\d.-])(?:[0-9][ -]?){12,18}[0-9](?![\d-])"), _card
    ),
    _Shape("ssn", 0.85, _SSN, _ssn),
    _Shape(
        "ip address",
        0.8,
        re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\.?\w)"),
        _ip,
    ),
    _Shape(
        "ip address",
        0.8,
        re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"),
        _ip,
    ),
    _Shape(
        "phone",
        0.75,
        re.compile(r"(?<![\w+])\+[0-9]{1,3}(?:[ .()-]{0,2}[0-9]{1,5}){2,6}(?!\d)"),
        _phone,
    ),
    _Shape(
        "phone",
        0.4,
        re.compile(
            r"(?<![\w+.-])\(?[0-9]{2,5}\)?[ .-]{1,2}[0-9]{3,4}[ .-]?[0-9]{3,4}(?![\w-]|\.\d)"
        ),
        _phone,
    ),
    _Shape("national id", 0.3, re.compile(r"(?<![\w.-])[0-9]{9}(?![\w-])"), _bsn),
    _Shape(
        "national id", 0.3, re.compile(r"(?<![\w.-])[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}(?!\w)"), _nhs
    ),
    _Shape("national id", 0.7, re.compile(r"(?<!\w)[0-9]{8}-?[A-Za-z](?!\w)"), _dni),
    _Shape(
        "national id",
        0.8,
        re.compile(
            r"(?<!\w)[12] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}(?!\w)"
        ),
        _nir,
    ),
    _Shape(
        "national id", 0.8, re.compile(r"(?<!\w)[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}(?!\w)"), _cpf
    ),
    _Shape("national id", 0.3, re.compile(r"(?<!\w)[0-9]{11}(?!\w)"), _cpf),
)
"""Forms whose check decides: a value that fails it is none of that kind."""

_IBAN = re.compile(
    r"(?<!\w)[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?!\w)", re.IGNORECASE
)

_NATIONAL = re.compile(
    r"national (?:id|identity|insurance)|identity (?:number|card)|\bbsn\b|burgerservicenummer"
    r"|\bnhs\b|\bdni\b|\bnif\b|\bnir\b|s[ée]curit[ée] sociale|\bcpf\b|tax(?:payer)? (?:id|number)",
    re.IGNORECASE,
)

_LEAST: Mapping[str, int] = {
    "phone": 7, "ssn": 9, "passport": 6, "driver licence": 5, "zip code": 4, "credit card": 99,
    "bank account": 6, "health insurance": 5,
}  # fmt: skip
"""Kind -> fewest digits of a number that a cue makes one; a card needs its check digit instead."""

_BARE: Mapping[str, tuple[str, float]] = {"place": ("detailed address", 0.6)}
"""Form -> what it is taken for where no word says what it is."""

KINDS = (
    "name", "email", "phone", "credit card", "bank account", "ip address", "ssn", "national id",
    "passport", "driver licence", "health insurance", "detailed address", "work address",
    "zip code", "date of birth", "gender", "bank transaction",
)  # fmt: skip
"""What can be found here; presidio and a language model find more."""

_WRITTEN = re.compile(r"<[A-Z][A-Z_]{1,30}(?::[\w-]{1,4096})*>")
"""What a guard has written in the place of an identifier."""


def by_pattern(segment: str) -> Iterator[Span]:
    """What has the form of an identifier, and passes the check of that form."""
    for shape in _SHAPES:
        extra = AROUND if _announced(shape.kind, segment) else 0.0
        for match in shape.pattern.finditer(segment):
            if shape.fits(match[0]):
                yield Span(*match.span(), shape.kind, min(1.0, shape.score + extra), "pattern")
    for match in _IBAN.finditer(segment):
        whole = match[0]
        while len(whole) >= 15:  # a word in capitals behind it looks like one more group
            bare = whole.replace(" ", "").upper()
            if 15 <= len(bare) <= 34 and mod97(bare):
                end = match.start() + len(whole)
                yield Span(match.start(), end, "bank account", 1.0, "pattern")
                break
            whole = whole.rpartition(" ")[0]


def by_cue(segment: str, question: str = "") -> Iterator[Span]:
    """What a word near it, or the question, says what it is.

    Args:
        segment: The text.
        question: What was asked, where the segment is of an answer.
    """
    at = 0
    for form, value in values_of(segment):
        at = max(segment.find(value, at), 0)
        span = (at, at + len(value))
        at += len(value)
        kind = kind_of(value, form, question, segment)
        if kind is None:
            if form in _BARE:
                yield Span(*span, *_BARE[form], "cue")
            continue
        if kind == "ssn" and _SSN.fullmatch(value) and not _ssn(value):
            continue
        if form != "number" or len(_digits(value)) >= _LEAST.get(kind, 0):
            yield Span(*span, kind, 0.4 + AROUND, "cue")


def by_presidio(segment: str) -> Iterator[Span]:
    """What the analyser of presidio finds, wherever it stands.

    Raises:
        ExpungeError: ``E-REQ-001`` when it is not installed.
    """
    from expunge.requests import personal

    for kind, value in personal.by_presidio(segment):
        for match in re.finditer(re.escape(value), segment):
            yield Span(*match.span(), kind, 0.85, "presidio")


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for in a text.

    Attributes:
        finders: Who looks at each segment.
        kinds: Which kinds of the rules count; what others find counts whatever its kind is.
        least: Lowest score that counts.
    """

    finders: Sequence[Finder]
    kinds: Collection[str]
    least: float

    def found(self, text: str) -> list[Span]:
        """Spans that do not overlap, in the order of the text."""
        spans = []
        for start, end in self.segments(text):
            spans += [
                one._replace(start=one.start + start, end=one.end + start)
                for one in self._in_segment(text[start:end])
            ]
        return resolved(spans)

    def segments(self, text: str) -> Iterator[tuple[int, int]]:
        """The segments of a whole text, as (start, end)."""
        start = 0
        while (end := self.cut(text[start : start + CAP + LOOK])) is not None:
            yield start, start + end
            start += end
        if start < len(text):
            yield start, len(text)

    def cut(self, text: str) -> int | None:
        """Where the first segment of a text ends, whatever comes behind the text.

        Args:
            text: The text so far, from the beginning of a segment.

        Returns:
            The end; None where more of the text must be known.
        """
        if (end := next(ends(text, CAP), None)) is not None:
            return end
        if len(text) < CAP + LOOK:
            return None
        spans = self._in_segment(text[: CAP + LOOK])
        for match in reversed(list(re.finditer(r"\s", text[:CAP]))):
            if not any(one.start < match.end() < one.end for one in spans):
                return match.end()
        return CAP

    def _in_segment(self, segment: str) -> list[Span]:
        written = [match.span() for match in _WRITTEN.finditer(segment)]
        return [
            span
            for finder in self.finders
            for span in finder(segment)
            if span.score >= self.least
            and (span.kind in self.kinds or span.source == "presidio")
            and not any(start <= span.start and span.end <= end for start, end in written)
        ]


def resolved(spans: Iterable[Span]) -> list[Span]:
    """Spans without overlaps: the longest wins, then the surest.

    What of another one sticks out is taken along, as the winner's kind: nothing that anybody found
    stays in the text.

    Example:
        >>> a, b = Span(0, 5, "a", 0.5, "x"), Span(3, 9, "b", 0.9, "x")
        >>> [one[:3] for one in resolved([a, b])]
        [(0, 9, 'b')]
    """
    kept: list[Span] = []
    for span in sorted(spans, key=lambda one: (one.start - one.end, -one.score, one)):
        touched = [one for one in kept if one.start < span.end and span.start < one.end]
        together = [*touched, span]
        start, end = min(one.start for one in together), max(one.end for one in together)
        kept = [one for one in kept if one not in touched]
        kept.append(together[0]._replace(start=start, end=end))
    return sorted(kept)


def _announced(kind: str, segment: str) -> bool:
    pattern = _NATIONAL if kind == "national id" else CUED.get(kind)
    return bool(pattern and pattern.search(segment))
