"""Canonical JSON (RFC 8785) and the hashes taken of it.

Two equal values have equal bytes, whoever wrote them; a signature or a cache key never depends
on the order of keys or the spelling of a number.
"""

import hashlib
from pathlib import Path
from typing import Any

import rfc8785

from expunge.core.errors import ExpungeError


def canonical(obj: Any) -> bytes:
    """The one JSON spelling of ``obj``.

    Args:
        obj: None, booleans, numbers, strings, lists, tuples, and dicts with string keys.

    Raises:
        ExpungeError: ``E-DATA-008`` for NaN, an infinity or an integer beyond 2**53 - 1 (give a
            longer seed as a string); ``E-DATA-010`` for text that is not valid Unicode.
        ValueError: For a value of another type; that is a defect of the caller.
    """
    try:
        return rfc8785.dumps(obj)
    except (rfc8785.FloatDomainError, rfc8785.IntegerDomainError) as error:
        raise ExpungeError(
            "E-DATA-008",
            f"A number that JSON cannot hold: {error}.",
            "finite numbers, and integers of at most 53 bits.",
            "Leave the number out or write it as a string.",
        ) from error
    except (UnicodeEncodeError, rfc8785.CanonicalizationError) as error:
        if not isinstance(error.__cause__ or error, UnicodeEncodeError):
            raise
        raise ExpungeError(
            "E-DATA-010",
            "Text with half of a surrogate pair.",
            "valid Unicode.",
            "Repair the text where it was read or cut.",
        ) from error


def digest(obj: Any) -> str:
    """SHA-256 of the canonical JSON of ``obj``, in hexadecimal."""
    return hashlib.sha256(canonical(obj)).hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; the file is streamed."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
