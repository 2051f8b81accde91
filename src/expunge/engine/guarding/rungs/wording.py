"""Words that a target and a text share: misspelt names, and questions in other words.

Definition (a phrase p of n words without function words; N targets, df(w) of them with the word w):
    idf(w)   = ln(1 + (N - df(w) + 1/2) / (df(w) + 1/2))              (BM25)
    fit(w)   = 1 where w stands in the text; 1 - 2 / (letters of v) where a word v one slip away
               does (`Spelling` only)
    share(p) = sum_{w in p} idf(w) fit(w) / sum_{w in p} idf(w) * n / (n + 1/2)
    score    = the highest share over the target's phrases and over all stretches of the text that
               are 3 n + 4 words long                                                in [0, 1)

The last factor keeps phrases of one word below those of several. `Spelling` has the names of a
target as phrases, as they are spelled. One slip is a letter left out, put in or changed, two
letters in the wrong order, or the inner letters shuffled. `Wording` has the questions of rows
without names, as stems. They are two rungs since what harmless texts score differs: a question
about somebody else shares most words of a question, and not the name.

A text is taken in parts of 64 words that overlap by half. In each the words it shares with the
store are looked up, rare ones first, until 2,048 entries are read, and the 64 targets that share
most of them are scored exactly; so the cost depends on the text and not on the store. A target that
shares nothing but words which thousands of others have may be missed then; no score is too high.

What is stored are keyed hashes of the words, and for `Spelling` also of the spellings one letter
short. The order of the words is not stored.

Reference: The Probabilistic Relevance Framework: BM25 and Beyond, 2009.

Departs from the paper: the score is the share of a phrase and not a sum, so that long texts do not
score high by their length; how often a word stands there does not count.
"""

from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from heapq import nlargest
from itertools import islice, pairwise
from math import ceil, log
from struct import pack, unpack
from typing import Any, NamedTuple

from expunge.engine.guarding.targets import Target
from expunge.text.normalise import words
from expunge.text.stem import stem
from expunge.text.stop import STOP_WORDS

SLIP = 2.0
"""Letters that a slip takes off a word; the longer it is, the less likely it is another one."""

LONG = 5
"""Shorter words of a name are not looked for with a slip: too many words are that near."""

PHRASE = 16
"""Words of a phrase; longer ones are taken in parts."""

PART, STRIDE = 64, 32
"""Words of a part of the text, and from one part to the next."""

ENTRIES, CANDIDATES = 2048, 64
"""What is read of the store for one part of a text, and how many targets are scored."""

HASH = 8
"""Bytes."""

Phrase = tuple[int, ...]


class Fit(NamedTuple):
    """A word of some phrase that stands in a part of a text."""

    at: int
    word: int
    fit: float


class Wording:
    """Questions of rows without names, in other words.

    Args:
        secret: Key of the hashes.
    """

    name = "wording"
    threshold = 0.7
    least = 0.4
    is_calibrated = True

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._phrases: dict[str, tuple[Phrase, ...]] = {}
        self._owners: dict[int, set[str]] = {}

    def key(self, target: Target) -> dict[str, Any]:
        """Keyed hashes: each phrase as a set of words."""
        told = (part for text in self._told(target) for part in _parts(text))
        phrases = {tuple(sorted({self._word(word) for word in part})) for part in told}
        return {"phrases": sorted(map(_packed, phrases))}

    def add(self, id: str, key: Mapping[str, Any]) -> None:
        """Take a target in, in the place of what it was."""
        self.remove(id)
        self._phrases[id] = tuple(map(_unpacked, key["phrases"]))
        for word in {word for phrase in self._phrases[id] for word in phrase}:
            self._owners.setdefault(word, set()).add(id)

    def remove(self, id: str) -> None:
        """Leave a target out."""
        for word in {word for phrase in self._phrases.pop(id, ()) for word in phrase}:
            self._owners[word].discard(id)
            if not self._owners[word]:
                del self._owners[word]

    def scores(self, text: str, most: int) -> list[tuple[str, float]]:
        """Share of the words of a target's nearest phrase."""
        best: dict[str, float] = {}
        if self._owners:
            told = words(text)
            for start in range(0, max(1, len(told) - STRIDE), STRIDE):
                for id, score in self._within(told[start : start + PART]):
                    best[id] = max(score, best.get(id, 0.0))
        return sorted(best.items(), key=lambda item: (-item[1], item[0]))[:most]

    def _told(self, target: Target) -> Iterable[str]:
        nameless = tuple(row for row in target.rows if not row.names and not target.aliases)
        return replace(target, rows=nameless).questions

    def _within(self, part: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Targets that share words with one part of a text, and their scores."""
        known = {word: self._known(word) for word in set(part) - STOP_WORDS}
        fits = [Fit(at, *one) for at, word in enumerate(part) for one in known.get(word, ())]
        weights = {fit.word: self._idf(fit.word) for fit in fits}
        for id in self._candidates(weights):
            yield id, max(self._share(phrase, fits, weights) for phrase in self._phrases[id])

    def _known(self, word: str) -> list[tuple[int, float]]:
        """The words of phrases that a word of a text is, or is near to, and how well they fit."""
        own = self._word(word)
        return [(own, 1.0)] if own in self._owners else []

    def _candidates(self, found: Iterable[int]) -> Iterable[str]:
        """The targets with most of the words, rare ones first as far as there is room."""
        counts: Counter[str] = Counter()
        room = ENTRIES
        for word in sorted(found, key=lambda word: (len(self._owners[word]), word)):
            room -= len(self._owners[word])
            if room < 0:
                break
            counts.update(self._owners[word])
        if len(counts) <= CANDIDATES:
            return counts
        return nlargest(CANDIDATES, counts, key=lambda id: (counts[id], id))

    def _share(self, phrase: Phrase, fits: Sequence[Fit], weights: Mapping[int, float]) -> float:
        """The share of a phrase in the best stretch of a part of a text."""
        mine = set(phrase)
        own = [fit for fit in fits if fit.word in mine]
        length = 3 * len(phrase) + 4
        covered = 0.0
        for first, start in enumerate(own):
            best: dict[int, float] = {}
            for fit in islice(own, first, None):
                if fit.at >= start.at + length:
                    break
                best[fit.word] = max(fit.fit, best.get(fit.word, 0.0))
            covered = max(covered, sum(weights[word] * best[word] for word in sorted(best)))
        whole = sum(weights.get(word) or self._idf(word) for word in phrase)
        return covered / whole * len(phrase) / (len(phrase) + 0.5)

    def _idf(self, word: int) -> float:
        owners = len(self._owners[word])
        return log(1 + (len(self._phrases) - owners + 0.5) / (owners + 0.5))

    def _word(self, word: str) -> int:
        return self._hashed(f"={_stem(word)}")

    def _hashed(self, text: str) -> int:
        name = self.name.encode()
        digest = blake2b(text.encode(), key=self._secret, digest_size=HASH, person=name)
        return int.from_bytes(digest.digest(), "little")


class Spelling(Wording):
    """Names, with a slip in each of their words."""

    name = "spelling"
    threshold = 0.5

    def __init__(self, secret: bytes) -> None:
        super().__init__(secret)
        self._own: dict[str, list[tuple[int, ...]]] = {}
        self._uses: Counter[int] = Counter()
        self._slips: dict[int, int | tuple[int, ...]] = {}

    def key(self, target: Target) -> dict[str, Any]:
        """Keyed hashes: names as sets of words, and the slips of the words."""
        every = {word for text in target.names for part in _parts(text) for word in part}
        long = [word for word in every if len(word) >= LONG]
        slips = [(self._word(word), *sorted(map(self._hashed, slips_of(word)))) for word in long]
        return {**super().key(target), "slips": sorted(map(_packed, slips))}

    def add(self, id: str, key: Mapping[str, Any]) -> None:
        """Take a target in, in the place of what it was."""
        super().add(id, key)
        self._own[id] = [_unpacked(one) for one in key["slips"]]
        for word, *slips in self._own[id]:
            self._uses[word] += 1
            for slip in slips if self._uses[word] == 1 else ():
                known = _several(self._slips.get(slip, ()))
                self._slips[slip] = (*known, word) if known else word

    def remove(self, id: str) -> None:
        """Leave a target out."""
        super().remove(id)
        for word, *slips in self._own.pop(id, ()):
            self._uses[word] -= 1
            if not self._uses[word]:
                del self._uses[word]
                for slip in slips:
                    self._forget(slip, word)

    def _told(self, target: Target) -> Iterable[str]:
        return target.names

    def _known(self, word: str) -> list[tuple[int, float]]:
        found = super()._known(word)
        if len(word) >= LONG - 1:
            near = (_several(self._slips.get(self._hashed(slip), ())) for slip in slips_of(word))
            others = {one for several in near for one in several} - {self._word(word)}
            found += [(one, 1 - SLIP / len(word)) for one in sorted(others)]
        return found

    def _word(self, word: str) -> int:
        return self._hashed(f"={word}")

    def _forget(self, slip: int, word: int) -> None:
        left = tuple(one for one in _several(self._slips[slip]) if one != word)
        if left:
            self._slips[slip] = left if len(left) > 1 else left[0]
        else:
            del self._slips[slip]


def slips_of(word: str) -> set[str]:
    """Spellings that two words share if, and hardly ever unless, they are one slip apart.

    Example:
        >>> bool(slips_of("mira") & slips_of("mirra")), bool(slips_of("mira") & slips_of("myrra"))
        (True, False)
    """
    shorter = {word[:at] + word[at + 1 :] for at in range(len(word))}
    return {word, *shorter, f"{word[0]}{''.join(sorted(word[1:-1]))}{word[-1]}/"}


def _parts(text: str) -> Iterator[list[str]]:
    """The telling words of a phrase; long ones in parts."""
    told = [word for word in words(text) if word not in STOP_WORDS]
    number = ceil(len(told) / PHRASE)
    edges = [len(told) * at // number for at in range(number + 1)] if number else []
    return (told[first:last] for first, last in pairwise(edges))


_stem = lru_cache(maxsize=1 << 14)(stem)


def _several(one: int | tuple[int, ...]) -> tuple[int, ...]:
    return one if isinstance(one, tuple) else (one,)


def _packed(hashes: Sequence[int]) -> str:
    return b64encode(pack(f"<{len(hashes)}Q", *hashes)).decode()


def _unpacked(text: str) -> tuple[int, ...]:
    data = b64decode(text)
    return unpack(f"<{len(data) // HASH}Q", data)
