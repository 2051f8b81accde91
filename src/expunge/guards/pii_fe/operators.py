"""What is written in the place of an identifier.

``redact`` writes nothing, ``replace`` the kind, ``mask`` as many stars as there were characters,
``hash`` the kind with a keyed hash, ``encrypt`` the kind with the value under a key, ``surrogate``
an invented value of the same form. The same value always becomes the same text: that keeps a
conversation understandable, and lets whoever sees two texts see that they name the same value.
"""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.extras import require
from expunge.core.rng import generator
from expunge.guards.pii_fe.finding import KINDS, Span, luhn
from expunge.requests.invent import invent
from expunge.requests.risk import KINDS as RISKY
from expunge.text.normalise import normalise

Operator = Callable[[str, str, bytes], str]
"""Value, kind and secret -> what is written."""

KNOWN = tuple(dict.fromkeys((*KINDS, *RISKY, "identifier")))
"""Kinds that any finder may name; what a language model masks is an identifier."""

_SEALED = re.compile(r"<([A-Z][A-Z_]{1,30}):enc:([A-Za-z0-9_-]{22,4096}={0,2})>")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_PART = re.compile(rf"\b(?:{'|'.join(_MONTHS)})\b|\d+|[^\W\d_]+|.", re.DOTALL)


def written(text: str, spans: Iterable[Span], chosen: Mapping[str, str], secret: bytes) -> str:
    """A text with its identifiers replaced, from the right so that places stay what they are.

    Args:
        text: The text.
        spans: Its identifiers, without overlaps.
        chosen: Kind -> name of its operator; ``*`` for all others.
        secret: Key of hashes, ciphers and surrogates.
    """
    for span in sorted(spans, reverse=True):
        operator = OPERATORS[chosen.get(span.kind, chosen["*"])]
        new = operator(text[span.start : span.end], span.kind, secret)
        text = text[: span.start] + new + text[span.end :]
    return text


def decrypt(text: str, secret: bytes) -> str:
    """A text with every encrypted identifier in the clear again.

    Args:
        text: Any text; what was encrypted under another secret, or changed, stays as it is.
        secret: The secret of the guard.

    Raises:
        ExpungeError: ``E-REQ-001`` when the package that decrypts is not installed.
    """
    from cryptography.exceptions import InvalidTag

    cipher = _cipher(secret)

    def opened(match: re.Match[str]) -> str:
        try:
            data = urlsafe_b64decode(match[2])
            return str(cipher.decrypt(data, [match[1].encode()]).decode())
        except (InvalidTag, ValueError):
            return match[0]

    return _SEALED.sub(opened, text)


def read_choice(default: str, each: Iterable[str]) -> dict[str, str]:
    """Which operator each kind gets.

    Args:
        default: The operator of kinds that are not named.
        each: ``KIND=OPERATOR``.

    Raises:
        ExpungeError: ``E-USE-003`` for what names no kind or no operator.
    """
    chosen = {"*": default}
    for one in each:
        kind, _, operator = one.partition("=")
        kind = kind.replace("_", " ").strip()
        if kind not in KNOWN or operator.strip() not in OPERATORS:
            raise ExpungeError(
                "E-USE-003",
                f"{one!r} among the operators of pii-fe.",
                f"KIND=OPERATOR with a kind of {', '.join(KNOWN)} and an operator of "
                f"{', '.join(OPERATORS)}.",
                "Correct it, for instance: email=mask.",
            )
        chosen[kind] = operator.strip()
    return chosen


def label(kind: str) -> str:
    """How a kind is written in a text.

    Example:
        >>> label("credit card")
        'CREDIT_CARD'
    """
    return re.sub(r"[^A-Z]+", "_", kind.upper())


def _redact(value: str, kind: str, secret: bytes) -> str:
    return ""


def _replace(value: str, kind: str, secret: bytes) -> str:
    return f"<{label(kind)}>"


def _mask(value: str, kind: str, secret: bytes) -> str:
    return "*" * len(value)


def _hash(value: str, kind: str, secret: bytes) -> str:
    told = f"{kind}\0{normalise(value)}".encode()
    return f"<{label(kind)}:{hmac.digest(_key(secret, 'hash'), told, 'sha256').hex()[:16]}>"


def _encrypt(value: str, kind: str, secret: bytes) -> str:
    """Without a random number, so that a stream and a whole text are encrypted alike."""
    sealed = _cipher(secret).encrypt(value.encode(), [label(kind).encode()])
    return f"<{label(kind)}:enc:{urlsafe_b64encode(sealed).decode()}>"


def _surrogate(value: str, kind: str, secret: bytes) -> str:
    """An invented value: digits for digits, names for words, a date that exists for a date."""
    told = f"{kind}\0{normalise(value)}".encode()
    digest = blake2b(told, key=_key(secret, "surrogate"), digest_size=8).digest()
    seed = int.from_bytes(digest) >> 1
    rng, names = generator(seed, "surrogate"), invent(value.lower(), seed)
    if kind == "email":
        return f"{next(names).lower()}@example.org"
    if kind == "ip address":
        colons = ":" in value
        return f"2001:db8::{rng.integers(1, 65536):x}" if colons else f"192.0.2.{rng.integers(255)}"
    is_date = kind == "date of birth"
    made = "".join(_invented(part, is_date, names, rng) for part in _PART.findall(value))
    return _with_check(made) if kind == "credit card" else made


def _invented(part: str, is_date: bool, names: Any, rng: Any) -> str:
    if part in _MONTHS and is_date:
        return str(_MONTHS[int(rng.integers(12))])
    if part[0].isdigit():
        if is_date:  # any day up to 12 is a month as well, so the order of the two does not matter
            number = int(rng.integers(1930, 2000) if len(part) > 2 else rng.integers(1, 13))
            return f"{number % 10 ** len(part):0{len(part)}d}" if part[0] == "0" else str(number)
        return "".join(str(rng.integers(10)) for _ in part)
    if not part[0].isalpha() or (is_date and part in ("st", "nd", "rd", "th")):
        return part
    name = str(next(names))
    return name.upper()[: len(part)].ljust(len(part), "X") if part.isupper() else (
        name if part[0].isupper() else name.lower()
    )  # fmt: skip


def _with_check(number: str) -> str:
    """A card number with the first digit of cards and a last one that passes the check."""
    places = [at for at, char in enumerate(number) if char.isdigit()]
    number = f"{number[: places[0]]}4{number[places[0] + 1 :]}"
    for digit in "0123456789":
        made = f"{number[: places[-1]]}{digit}{number[places[-1] + 1 :]}"
        if luhn("".join(made[at] for at in places)):
            return made
    raise AssertionError("one of ten digits fits")


OPERATORS: Mapping[str, Operator] = {
    "redact": _redact,
    "replace": _replace,
    "mask": _mask,
    "hash": _hash,
    "encrypt": _encrypt,
    "surrogate": _surrogate,
}


def _cipher(secret: bytes) -> Any:
    require("cryptography", extra="serve")
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    return AESSIV(blake2b(b"pii-fe encrypt", key=secret, digest_size=64).digest())


def _key(secret: bytes, what: str) -> bytes:
    return blake2b(f"pii-fe {what}".encode(), key=secret, digest_size=32).digest()
