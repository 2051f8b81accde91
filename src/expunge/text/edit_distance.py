"""Edit distance of two texts.

Reference: Binary codes capable of correcting deletions, insertions, and reversals (1966), with the
bit vectors of A fast bit-vector algorithm for approximate string matching based on dynamic
programming (1999).
"""


def levenshtein(a: str, b: str) -> int:
    """Fewest characters to insert, delete or replace that turn one text into the other.

    The columns of the table are kept as differences, in the bits of two integers: about len(b)
    operations on integers of len(a) bits.

    Example:
        >>> levenshtein("kitten", "sitting")
        3
    """
    if not a:
        return len(b)
    places: dict[str, int] = {}
    for i, character in enumerate(a):
        places[character] = places.get(character, 0) | 1 << i
    everywhere, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    rises, falls, distance = everywhere, 0, len(a)
    for character in b:
        match = places.get(character, 0)
        diagonal = (((match & rises) + rises) ^ rises) | match | falls
        risen, fallen = falls | (everywhere & ~(diagonal | rises)), rises & diagonal
        distance += bool(risen & last) - bool(fallen & last)
        risen, fallen = (risen << 1 | 1) & everywhere, (fallen << 1) & everywhere
        rises, falls = fallen | (everywhere & ~(diagonal | risen)), risen & diagonal
    return distance


def likeness(a: str, b: str) -> float:
    """1 minus the distance as a share of the longer text: 1 for equal texts, 0 for nothing alike.

    Example:
        >>> likeness("abcd", "abxd"), likeness("", "")
        (0.75, 1.0)
    """
    longest = max(len(a), len(b))
    return 1 - levenshtein(a, b) / longest if longest else 1.0
