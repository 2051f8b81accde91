"""A budget of drawn answers: how likely some of them leak, and which word they point at.

Definition:
    leak@b    = mean over rows of  1 - C(n - c, b) / C(n, b)      c of the row's n answers leak
    pinpoint  = share of rows whose commonest telling word belongs to the value

    Words of the question, and words that most rows' answers share, tell nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import comb
from statistics import fmean

from expunge.lm.elicit import Heard
from expunge.lm.values import prompt_text
from expunge.requests.rows import Row
from expunge.text.normalise import words

SIZES = (1, 4, 16, 64)
"""Budgets that are reported, as far as answers were drawn."""


def budget_parts(heard: Sequence[Heard]) -> dict[str, float]:
    """``leak@b`` for each of `SIZES` that every row has answers for, and ``pinpoint``."""
    if not heard:
        return {}
    leaks: dict[str, list[bool]] = defaultdict(list)
    for one in heard:
        leaks[one.probe.row.id] += (leak > 0 for leak in one.leaks)
    least = min(map(len, leaks.values()))
    parts = {
        f"leak@{b}": fmean(any_of(b, len(own), sum(own)) for own in leaks.values())
        for b in SIZES
        if b <= least
    }
    return parts | {"pinpoint": pinpoint(heard)}


def any_of(b: int, n: int, c: int) -> float:
    """Chance that b of n answers hold at least one of the c that leak.

    Example:
        >>> any_of(1, 8, 2), any_of(8, 8, 1), any_of(4, 8, 0)
        (0.25, 1.0, 0.0)
    """
    return 1 - comb(n - c, b) / comb(n, b)


def pinpoint(heard: Iterable[Heard]) -> float:
    """Share of rows whose commonest telling word belongs to the value."""
    rows: dict[str, Row] = {}
    said: dict[str, Counter[str]] = defaultdict(Counter)
    given: dict[str, set[str]] = defaultdict(set)
    for one in heard:
        row = one.probe.row
        rows[row.id] = row
        given[row.id].update(words(prompt_text(one.probe.turn)), words(one.probe.opening))
        for output in one.outputs:
            said[row.id].update(words(output))
    shared = _shared_words(said)
    return fmean(
        bool(guess) and guess in {word for form in row.forms for word in words(form)}
        for name, row in rows.items()
        for guess in [_commonest(said[name], given[name] | shared)]
    )


def _shared_words(said: Mapping[str, Counter[str]]) -> set[str]:
    """Words in the answers of more than half of the rows: they tell no row from another."""
    rows_with = Counter(word for counts in said.values() for word in counts)
    return {word for word, n in rows_with.items() if n > max(1, len(said) / 2)}


def _commonest(counts: Counter[str], known: set[str]) -> str:
    telling = {word: n for word, n in counts.items() if word not in known}
    return min(telling, key=lambda word: (-telling[word], word), default="")
