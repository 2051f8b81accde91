"""What must not lie about in the clear, sealed: AES-256-GCM under a key of the store's secret."""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import blake2b
from secrets import token_bytes
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.extras import require

SEALED = "sealed"
"""What stands under this name is sealed where it is written."""

NONCE = 12


def seal(value: Any, secret: bytes) -> str:
    """A JSON value as a text that only the secret opens.

    Raises:
        ExpungeError: ``E-REQ-001`` when the package that seals is not installed.
    """
    nonce = token_bytes(NONCE)
    plain = json.dumps(value, allow_nan=False).encode()
    return b64encode(nonce + _cipher(secret).encrypt(nonce, plain, None)).decode()


def unseal(text: str, secret: bytes) -> Any:
    """The value that `seal` sealed.

    Raises:
        ExpungeError: ``E-SERVE-007`` for another secret, or when the text was changed.
    """
    cipher = _cipher(secret)
    try:
        data = b64decode(text, validate=True)
        return json.loads(cipher.decrypt(data[:NONCE], data[NONCE:], None))
    except Exception as error:
        raise ExpungeError(
            "E-SERVE-007",
            "A sealed value that this key does not open.",
            "the key it was sealed with, and no change since.",
            "Give the key that belongs to this store.",
        ) from error


def sealed_entry(value: Any, secret: bytes) -> Any:
    """A JSON value with all that stands under `SEALED` in it sealed."""
    return _through(value, lambda inner: seal(inner, secret))


def opened_entry(value: Any, secret: bytes) -> Any:
    """The value that `sealed_entry` was given."""
    return _through(value, lambda inner: unseal(inner, secret))


def _through(value: Any, change: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: change(inner) if name == SEALED else _through(inner, change)
            for name, inner in value.items()
        }
    return [_through(one, change) for one in value] if isinstance(value, list | tuple) else value


def _cipher(secret: bytes) -> Any:
    require("cryptography", extra="serve")
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(blake2b(b"seal", key=secret, digest_size=32).digest())
