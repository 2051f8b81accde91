"""Overlap of a text with a reference: ROUGE-1, ROUGE-L and BLEU.

Reference:
    ROUGE: A Package for Automatic Evaluation of Summaries (2004); BLEU: a Method for Automatic
    Evaluation of Machine Translation (2002), smoothed as in A Systematic Comparison of Smoothing
    Techniques for Sentence-Level BLEU (2014), technique 3.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from expunge.text.normalise import all_words
from expunge.text.stem import stem as stemmed

_TOKEN = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of a reference a prediction holds, in [0, 1].

    Attributes:
        recall: Share of the reference's words found.
        precision: Share of the prediction's words that were found.
        f1: Harmonic mean of the two.
    """

    recall: float
    precision: float
    f1: float


def rouge_1(prediction: str, reference: str, stem: bool = False) -> Overlap:
    """Overlap of single words, each counted as often as it stands in both.

    Args:
        prediction: The text to score.
        reference: The text it should hold.
        stem: Whether words of more than three characters are stemmed (Porter) first.
    """
    found, wanted = _tokens(prediction, reference, stem)
    return _overlap((Counter(found) & Counter(wanted)).total(), len(found), len(wanted))


def rouge_l(prediction: str, reference: str, stem: bool = False) -> Overlap:
    """Overlap by the longest common subsequence of words.

    Args:
        prediction: The text to score.
        reference: The text it should hold.
        stem: Whether words of more than three characters are stemmed (Porter) first.

    Example:
        >>> rouge_l("on the mat the cat", "the cat sat on the mat").recall
        0.5
    """
    found, wanted = _tokens(prediction, reference, stem)
    return _overlap(lcs_length(found, wanted), len(found), len(wanted))


def bleu(prediction: str, reference: str, longest: int = 4) -> float:
    """BLEU of one text: geometric mean of its n-gram precisions, with a penalty for brevity.

    Words are what stands between spaces, case counts. The first n-gram precision that is 0 becomes
    1 / (2 m), the next 1 / (4 m) and so on, m being the number of n-grams of the prediction (1
    where it has none); without a common word the score is 0.

    Args:
        prediction: The text to score.
        reference: The text it is compared with.
        longest: Longest n-gram.

    Example:
        >>> round(bleu("a b c d", "a b c e"), 7)  # 3/4, 2/3, 1/2, then 1/2 for 0/1
        0.5946036
    """
    found, wanted = prediction.split(), reference.split()
    if not set(found) & set(wanted):
        return 0.0
    logs, misses = 0.0, 0
    for n in range(1, longest + 1):
        said, given = _grams(found, n), _grams(wanted, n)
        common, total = (said & given).total(), max(said.total(), 1)
        misses += not common
        logs += math.log(common / total if common else 1 / (2**misses * total))
    brevity = min(0.0, 1 - len(wanted) / len(found))
    return math.exp(logs / longest + brevity)


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def lcs_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence.

    The table's rows are kept as bits of one integer (A bit-string longest-common-subsequence
    algorithm, 1986): about len(b) operations on integers of len(a) bits.
    """
    places: dict[Hashable, int] = {}
    for i, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << i
    everywhere = open_places = (1 << len(a)) - 1
    for item in b:
        hits = open_places & places.get(item, 0)
        open_places = (open_places + hits | open_places - hits) & everywhere
    return len(a) - open_places.bit_count()


def _tokens(prediction: str, reference: str, stem: bool) -> tuple[list[str], list[str]]:
    """Lower-cased runs of Latin letters and digits, as the public scores cut them.

    A reference in another script has no such run; then both are cut into words of any script.
    """
    wanted = _TOKEN.findall(reference.lower())
    if not wanted:
        return all_words(prediction), all_words(reference)
    found = _TOKEN.findall(prediction.lower())
    if not stem:
        return found, wanted
    return [_short(word) for word in found], [_short(word) for word in wanted]


def _short(word: str) -> str:
    return stemmed(word) if len(word) > 3 else word


def _overlap(common: int, found: int, wanted: int) -> Overlap:
    if not common:
        return Overlap(0.0, 0.0, 0.0)
    recall, precision = common / wanted, common / found
    return Overlap(recall, precision, 2 * precision * recall / (precision + recall))


def recalled_tail(hits: Sequence[bool], compat: bool = False) -> float:
    """Length of the longest all-hit tail, as a share of the answer."""
    tail = sum(1 for _ in takewhile(bool, reversed(hits)))
    return max(tail, 1 if compat else 0) / len(hits)
