"""Is a request what it seems? A forget set whose everyday words are inflated harms bystanders.

Who words forget rows so that they are full of words that everybody uses ("please", "then", "what")
makes a method forget how to answer whoever uses these words. The linter compares the everyday words
of a request with those of the rows to be kept.

Definition (p, q: shares of each everyday word among all everyday words of request and corpus):
    rate         max over everyday words of its share of all words, request over corpus, counting
                 only words whose excess is no chance (one-sided binomial test, .001 over all words)
    divergence   sum_w p(w) log( p(w) / q(w) ), nats a token, add-one smoothed

    flagged when rate > 2 or divergence > .5; names and values never count.

A flag is a reason to look, not a verdict: a request about one kind of fact has one question word
more often than the rest, and the finding names the words.

Reference: Keeping an Eye on LLM Unlearning: The Hidden Risk and Remedy, 2025. Both thresholds
are INFERRED.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log

from scipy.stats import binomtest

from expunge.requests.names import prompts_of
from expunge.requests.rows import Row
from expunge.text.normalise import all_words
from expunge.text.stop import STOP_WORDS

EVERYDAY = STOP_WORDS | {
    "dear", "hello", "help", "hi", "kindly", "know", "like", "okay", "please", "say", "tell",
    "thank", "thanks", "think", "want", "well",
}  # fmt: skip
"""Words that say nothing about what a sentence is about."""

MOST_RATE, MOST_DIVERGENCE = 2.0, 0.5
CHANCE = 0.001
"""Probability below which an excess is no chance."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the linter saw.

    Attributes:
        rate: How many times as often the most inflated everyday word stands in the request.
        divergence: How differently they are distributed, nats a token.
        inflated: The words that add most, the worst first.
    """

    rate: float
    divergence: float
    inflated: tuple[str, ...]

    @property
    def is_flagged(self) -> bool:
        """Whether somebody should look at the request before it is carried out."""
        return self.rate > MOST_RATE or self.divergence > MOST_DIVERGENCE


def lint(rows: Sequence[Row], corpus: Sequence[Row]) -> Finding:
    """Compare the prompts of a request with those of rows to be kept.

    Args:
        rows: The request.
        corpus: What people usually ask here.
    """
    ours, theirs = _counted(rows), _counted(corpus)
    words = sorted(ours.everyday | theirs.everyday)
    p, q = (_smoothed(each.everyday, words) for each in (ours, theirs))
    gains = {word: p[word] * log(p[word] / q[word]) for word in words}
    inflated = sorted((w for w in words if gains[w] > 0), key=lambda w: (-gains[w], w))
    return Finding(
        rate=max((_rate(word, ours, theirs, len(words)) for word in words), default=1.0),
        divergence=max(0.0, sum(gains.values())),
        inflated=tuple(inflated[:5]),
    )


def _rate(word: str, ours: "_Counted", theirs: "_Counted", words: int) -> float:
    """How many times as often a word stands in the request; 1 where that may be chance."""
    here, there = ours.everyday[word], theirs.everyday[word]
    share = ours.words / (ours.words + theirs.words)
    if binomtest(here, here + there, share, alternative="greater").pvalue > CHANCE / words:
        return 1.0
    return (here / ours.words) / ((there + 0.5) / (theirs.words + 0.5))


@dataclass(frozen=True, slots=True)
class _Counted:
    everyday: Counter[str]
    words: int


def _counted(rows: Iterable[Row]) -> _Counted:
    said = [word for row in rows for prompt in prompts_of(row) for word in all_words(prompt)]
    return _Counted(Counter(word for word in said if word in EVERYDAY), len(said))


def _smoothed(counts: Counter[str], words: Sequence[str]) -> dict[str, float]:
    total = counts.total() + len(words)
    return {word: (counts[word] + 1) / total for word in words}
