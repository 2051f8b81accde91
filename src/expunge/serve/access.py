"""Tokens: who may call, for what, until when and how often."""

import hmac
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from math import ceil
from secrets import token_bytes, token_urlsafe
from threading import Lock

from expunge.serve.faults import Fault

CALLER, ADMIN = "caller", "admin"
SCOPES = (CALLER, ADMIN)
"""What tokens are for: asking the model, or saying what it must not tell."""

RATE = 1000.0
"""Requests a second that one token may make."""

MOST_TOKEN = 1024
"""Longest token that is looked at, in characters."""


def new_token() -> str:
    """A token of 256 bits."""
    return token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token; it cannot be told from this.

    Attributes:
        scope: One of `SCOPES`.
        salt: Hashed with it, so that equal tokens do not look equal.
        hash: SHA-256 of both. No slow hash is needed: a token that is made here has 256 bits, and
            one that somebody chose is never written down.
        expires: Seconds since 1970 after which it is void; None for never.
        role: The caller's role, for guards whose policy tells callers apart; empty for none.
    """

    scope: str
    salt: bytes
    hash: bytes
    expires: float | None = None
    role: str = ""

    @classmethod
    def of(cls, text: str, scope: str, expires: float | None = None, role: str = "") -> "Token":
        """What to keep of a token."""
        salt = token_bytes(16)
        return cls(scope, salt, _hashed(salt, text), expires, role)

    def fits(self, text: str) -> bool:
        """Whether it is this one; takes the same time either way."""
        return hmac.compare_digest(self.hash, _hashed(self.salt, text))


@dataclass(slots=True)
class Bucket:
    """Lets so many requests a second through; some more where they come in bursts.

    Attributes:
        rate: Requests a second.
        clock: Tells the seconds.
        free: Requests that may come at once.
        last: When it was looked at last.
    """

    rate: float
    clock: Callable[[], float] = time.monotonic
    free: float = field(init=False)
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.free, self.last = self.room, self.clock()

    @property
    def room(self) -> float:
        """Half a second's worth, so that a minute's sum stays within 1% of the rate."""
        return max(1.0, self.rate / 2)

    def wait(self) -> float:
        """Take one request; the seconds to wait where there is none left, else 0."""
        now = self.clock()
        self.free = min(self.room, self.free + (now - self.last) * self.rate)
        self.last = now
        if self.free >= 1 - 1e-9:  # sums of many small shares fall short of the whole
            self.free -= 1
            return 0.0
        return (1 - self.free) / self.rate


class Access:
    """The tokens of one gateway.

    Args:
        tokens: What is kept of them.
        rate: Requests a second that each may make; 0 for any number.
        clock: Tells the seconds since 1970.
        ticking: Tells the seconds of a clock that never goes back.
    """

    def __init__(
        self,
        tokens: Iterable[Token],
        *,
        rate: float = RATE,
        clock: Callable[[], float] = time.time,
        ticking: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens, self._clock, self._lock = tuple(tokens), clock, Lock()
        self._buckets = [Bucket(rate, ticking) if rate > 0 else None for _ in self._tokens]

    def admit(self, header: str, scope: str) -> str:
        """Let a request in.

        Args:
            header: Its ``Authorization``.
            scope: What it needs.

        Returns:
            The caller's role; empty for none.

        Raises:
            Fault: 401 without a valid token, 403 with one for something else, 429 too often.
        """
        kind, _, text = header.partition(" ")
        text = text.strip() if kind.lower() == "bearer" else ""
        known = [at for at, token in enumerate(self._tokens) if token.fits(text[:MOST_TOKEN])]
        valid = [at for at in known if not self._is_over(self._tokens[at])]
        if not valid or not text or len(text) > MOST_TOKEN:
            raise Fault(
                401, "invalid_api_key", "No valid token: send 'Authorization: Bearer TOKEN'.",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        fit = [at for at in valid if self._tokens[at].scope == scope]
        if not fit:
            raise Fault(403, "wrong_scope", f"This takes the {scope}'s token.")
        bucket, wait = self._buckets[fit[0]], 0.0
        if bucket is not None:
            with self._lock:
                wait = bucket.wait()
        if wait:
            raise Fault(
                429, "rate_limit_exceeded", "Too many requests with this token.",
                headers={"Retry-After": str(ceil(wait))},
            )  # fmt: skip
        return self._tokens[fit[0]].role

    def _is_over(self, token: Token) -> bool:
        return token.expires is not None and self._clock() >= token.expires


def _hashed(salt: bytes, text: str) -> bytes:
    return sha256(salt + text.encode("utf-8", "surrogatepass")).digest()
