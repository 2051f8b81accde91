"""Which rows a run-time part was made for, so that whoever serves it can tell whom it covers.

A part keeps a keyed hash of the content of every row. The key lies beside the hashes: they tell
nothing to who reads them, and everything to who guesses, as the part itself does.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from expunge.core.canonical import digest
from expunge.requests.rows import Row
from expunge.text.normalise import normalise

COVERS = "covers"
"""Where a part's settings say it."""


def covers(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """What a part says of the rows it was made for.

    Args:
        rows: The rows.
        seed: Of the run; the same run says the same.
    """
    key = digest(["covers", seed, len(rows)])[:32]
    return {"key": key, "rows": sorted(hashes_of(rows, key))}


def hashes_of(rows: Iterable[Row], key: str) -> set[str]:
    """A keyed hash of each row's content, however it is spelled."""
    told = ("\0".join(normalise(part) for part in content_of(row)) for row in rows)
    return {blake2b(one.encode(), key=key.encode(), digest_size=16).hexdigest() for one in told}


def content_of(row: Row) -> tuple[str, ...]:
    """What makes a row the row it is: running text, or what is asked and what is answered."""
    if row.text is not None:
        return (row.text,)
    prompt = row.turn.prompt
    asked = (prompt,) if isinstance(prompt, str) else tuple(m["content"] for m in prompt)
    return (*asked, row.reply)


def is_covered(rows: Sequence[Row], told: Iterable[Mapping[str, Any]]) -> bool:
    """Whether all of some rows are among those that parts were made for.

    Args:
        rows: The rows; none are not covered.
        told: What parts say, see `covers`.
    """
    known = [(str(one["key"]), set(one["rows"])) for one in told]
    return bool(rows) and all(
        any(hashes_of([row], key) <= hashes for key, hashes in known) for row in rows
    )
