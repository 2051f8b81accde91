"""Which shard and which slice a row belongs to.

    place(x) = SHA-256( salt, content of x ) mod (m L)

The place of a row hangs on nothing but the row and the salt: taking another row out moves it
nowhere, and rows that resemble one another do not gather. Whoever knows the salt can write rows
that all fall into one shard; keep it to yourself where strangers hand rows in.
"""

from expunge.core.canonical import digest

HEX = 16
"""Digits of the hash that are used: 64 bits, so that no slice is favoured."""


def place(key: str, salt: str, shards: int, slices: int) -> tuple[int, int]:
    """Shard and slice of a row, counted from 0.

    Args:
        key: Hash of the row's content.
        salt: Of the ensemble.
        shards: Number of shards (m).
        slices: Slices of each (L).
    """
    number = int(digest([salt, key])[:HEX], 16) % (shards * slices)
    return divmod(number, slices)
