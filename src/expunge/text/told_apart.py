"""Telling two kinds of texts apart by their words: multinomial naive Bayes.

Definition:
    log-odds(text) = log(n_1 / n_0) + sum over features w of text of log( P(w|1) / P(w|0) )
    P(w|c) = (count of w in texts of kind c + a) / (all counts of kind c + a * features known)

Features are words and pairs of words that stand next to each other, case aside. A feature that no
text had says nothing.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from expunge.text.ngrams import ngrams, pieces

SMOOTHING = 0.5
"""Count every feature has beforehand (a)."""

FOLDS = 5
"""Parts that take turns in being judged."""


@dataclass(frozen=True, slots=True)
class Told:
    """What tells texts of one kind from those of another.

    Attributes:
        prior: Log-odds of a text without features.
        odds: Feature -> what it adds.
    """

    prior: float
    odds: dict[tuple[str, ...], float]

    def log_odds(self, text: str) -> float:
        """Log-odds of being of the first kind, nats."""
        return self.prior + math.fsum(self.odds.get(one, 0.0) for one in features(text))


def features(text: str) -> list[tuple[str, ...]]:
    """Words and pairs of words, case aside."""
    parts = [part for part in pieces(text.casefold()) if part[0].isalnum()]
    return [*ngrams(parts, 1), *ngrams(parts, 2)]


def tell_apart(kind: Sequence[str], others: Sequence[str]) -> Told:
    """Learn from labelled texts.

    Args:
        kind: Texts of the first kind, at least one.
        others: Texts of the other kind, at least one.

    Example:
        >>> told = tell_apart(["a poison", "this poison"], ["a cake", "this cake"])
        >>> told.log_odds("Poison!") > 0 > told.log_odds("cake")
        True
    """
    counts = [Counter(one for text in texts for one in features(text)) for texts in (kind, others)]
    known = set(counts[0]) | set(counts[1])
    totals = [count.total() + SMOOTHING * len(known) for count in counts]

    def share(side: int, feature: tuple[str, ...]) -> float:
        return math.log((counts[side][feature] + SMOOTHING) / totals[side])

    odds = {feature: share(0, feature) - share(1, feature) for feature in known}
    return Told(math.log(len(kind) / len(others)), odds)


def accuracy(kind: Sequence[str], others: Sequence[str]) -> float:
    """Balanced accuracy on texts that were not learnt from, five parts taking turns.

    Args:
        kind: Texts of the first kind, at least two.
        others: Texts of the other kind, at least two.
    """
    right = []
    for texts, rest, sign in ((kind, others, 1), (others, kind, -1)):
        hits = 0
        parts = min(FOLDS, len(texts))
        for part in range(parts):
            held = texts[part::parts]
            kept = [text for at, text in enumerate(texts) if at % parts != part]
            seen = (
                rest if len(rest) < FOLDS else [t for i, t in enumerate(rest) if i % FOLDS != part]
            )
            told = tell_apart(*((kept, seen) if sign > 0 else (seen, kept)))
            hits += sum(sign * told.log_odds(text) > 0 for text in held)
        right.append(hits / len(texts))
    return sum(right) / 2
