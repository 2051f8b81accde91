"""Rows known by their tokens, whatever view, role or wording they stand in.

What a method notes of rows before training stands in ``task.state`` under such a key.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TypeVar

import numpy as np

from expunge.engine.remembered import rows_of
from expunge.engine.view import View

Note = TypeVar("Note")


def key_of(ids: Sequence[int]) -> str:
    """The key of a row with these token ids, 16 hexadecimal digits."""
    return _hashed(np.array(ids, dtype=np.int64).tobytes())


def noted(view: View, table: Mapping[str, Note], otherwise: Note) -> list[Note]:
    """What a table holds of each row of a view, padding left out.

    Args:
        view: The rows.
        table: Key -> what was noted.
        otherwise: For rows that are not in it.
    """
    return [table.get(_hashed(ids), otherwise) for ids, _ in rows_of(view.inputs)]


def _hashed(ids: bytes) -> str:
    return sha256(ids).hexdigest()[:16]
