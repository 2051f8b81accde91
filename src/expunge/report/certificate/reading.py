"""How certificates, records and keys are read: within limits, and in one way only.

JSON that two programs could read differently (a key that stands twice, a number beyond a double)
is refused rather than read as one of them.
"""

import json
from datetime import UTC, datetime, timedelta
from math import isfinite
from pathlib import Path
from typing import Any

HEX = r"[0-9a-f]{64}"
STAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"


class Unreadable(ValueError):
    """What is wrong with a file, in words that end without a full stop."""


def contents(path: Path, limit: int) -> bytes:
    """All bytes of a regular file.

    Raises:
        Unreadable: When it is missing, no regular file, or longer than ``limit``.
    """
    if not path.is_file():
        raise Unreadable("it is no file" if path.exists() else "it is missing")
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise Unreadable(f"it is longer than {limit} bytes")
    return data


def strict(data: bytes) -> Any:
    """The JSON value of ``data``, if there is only one way to read it.

    Raises:
        Unreadable: For broken JSON or UTF-8, keys that stand twice, numbers that are none.
    """
    try:
        return _DECODER.decode(data.decode())
    except UnicodeDecodeError as error:
        raise Unreadable(f"byte {error.start} is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is no JSON of one reading: {str(error)[:200]}") from error


def stamp(time: datetime) -> str:
    """A time as certificates and logs write it: UTC, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_of(text: str) -> datetime:
    """The time that `stamp` wrote.

    Raises:
        Unreadable: When there is no such time.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise Unreadable(f"{text[:40]!r} is no time in UTC") from error


def after(time: datetime, days: int) -> datetime:
    """``days`` later."""
    return time + timedelta(days=days)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {twice[:60]!r} stands twice")
    return found


def _constant(token: str) -> Any:
    raise ValueError(f"the number {token}")


def _double(token: str) -> float:
    value = float(token)
    if not isfinite(value):
        raise ValueError(f"the number {token[:40]}")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_double
)
