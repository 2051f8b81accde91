"""How varied a text is: its sequences of n words, and how often they return."""

import math
import re
from collections import Counter
from collections.abc import Sequence

_PIECE = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def pieces(text: str) -> list[str]:
    """Words and single marks of punctuation, as they stand."""
    return _PIECE.findall(text)


def ngrams(parts: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n parts."""
    return list(zip(*(parts[start:] for start in range(n)), strict=False))


def entropy(parts: Sequence[str], n: int) -> float:
    """Shannon entropy of the distribution of n-grams, in bits; 0 where there is none.

    Example:
        >>> entropy("a b c d e".split(), 2)
        2.0
    """
    counts = Counter(ngrams(parts, n))
    total = counts.total()
    return math.fsum(-(k / total) * math.log2(k / total) for k in counts.values()) or 0.0


def repeated(parts: Sequence[str], n: int) -> float:
    """Share of n-grams that stood in the text before.

    Raises:
        ValueError: When the text has no n-gram.

    Example:
        >>> repeated("a b a b a".split(), 2)
        0.5
    """
    found = ngrams(parts, n)
    if not found:
        raise ValueError(f"a text of {len(parts)} words has no {n}-gram")
    return 1 - len(set(found)) / len(found)
