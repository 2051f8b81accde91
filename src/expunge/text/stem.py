"""Porter's stemmer for English words.

Reference:
    An algorithm for suffix stripping (1980).

Departs from the paper:
    The later amendments that public ROUGE scores use are in: a list of irregular words, ``ied``
    and ``ies`` by length, ``y`` after a consonant, ``bli``, ``alli``, ``fulli`` and ``logi``.
    Published scores are only reproduced with them.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

Test = Callable[[str], bool]
Rule = tuple[str, str, Test]

_IRREGULAR = {
    "skies": "sky", "sky": "sky", "dying": "die", "lying": "lie", "tying": "tie", "news": "news",
    "innings": "inning", "inning": "inning", "outings": "outing", "outing": "outing",
    "cannings": "canning", "canning": "canning", "howe": "howe", "proceed": "proceed",
    "exceed": "exceed", "succeed": "succeed",
}  # fmt: skip


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of a lower-case word.

    Example:
        >>> stem("relational"), stem("hopping"), stem("skies")
        ('relat', 'hop', 'sky')
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _final_y(_past_and_gerund(_plural(word)))
    word = _replace(_double_suffix(word), _STEP_3)
    return _final_l(_final_e(_replace(word, _STEP_4)))


def _consonants(word: str) -> list[bool]:
    """Which letters are consonants; a ``y`` is one unless it follows one."""
    kinds: list[bool] = []
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and bool(kinds) and kinds[-1])
        kinds.append(not vowel)
    return kinds


def _measure(word: str) -> int:
    """How often a vowel is followed by a consonant."""
    return sum(not before and after for before, after in pairwise(_consonants(word)))


def _is_positive(word: str) -> bool:
    return _measure(word) > 0


def _is_long(word: str) -> bool:
    return _measure(word) > 1


def _has_vowel(word: str) -> bool:
    return not all(_consonants(word))


def _ends_short(word: str) -> bool:
    """Whether the word ends consonant, vowel, consonant, as in *hop*; or is like *at*."""
    kinds = _consonants(word)
    if len(word) == 2:
        return kinds == [False, True]
    return kinds[-3:] == [True, False, True] and word[-1] not in "wxy"


def _replace(word: str, rules: Sequence[Rule]) -> str:
    """Apply the first rule whose suffix fits; if its condition fails, nothing."""
    for suffix, new, holds in rules:
        if word.endswith(suffix):
            rest = word[: len(word) - len(suffix)]
            return rest + new if holds(rest) else word
    return word


def _plural(word: str) -> str:
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past_and_gerund(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _is_positive(word[:-3]) else word
    for suffix in ("ed", "ing"):
        rest = word.removesuffix(suffix)
        if rest != word and _has_vowel(rest):
            return _mended(rest)
    return word


def _mended(word: str) -> str:
    """Give back what ``ed`` and ``ing`` took: *hop(p)ing*, *rat(e)ing*."""
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if len(word) > 1 and word[-1] == word[-2] and _consonants(word)[-1]:
        return word if word[-1] in "lsz" else word[:-1]
    return word + "e" if _measure(word) == 1 and _ends_short(word) else word


def _final_y(word: str) -> str:
    rest = word[:-1]
    if word.endswith("y") and len(rest) > 1 and _consonants(rest)[-1]:
        return rest + "i"
    return word


def _double_suffix(word: str) -> str:
    if word.endswith("alli") and _is_positive(word[:-4]):
        return _double_suffix(word[:-2])
    return _replace(word, _STEP_2)


def _final_e(word: str) -> str:
    rest = word.removesuffix("e")
    if rest != word and (_is_long(rest) or (_measure(rest) == 1 and not _ends_short(rest))):
        return rest
    return word


def _final_l(word: str) -> str:
    return word[:-1] if word.endswith("ll") and _is_long(word[:-1]) else word


def _after_s_or_t(word: str) -> bool:
    return _is_long(word) and word[-1] in "st"


def _rules(pairs: str, holds: Test) -> tuple[Rule, ...]:
    """Rules from ``old:new`` words, all under the same condition."""
    halves = (pair.split(":") for pair in pairs.split())
    return tuple((old, new, holds) for old, new in halves)


_STEP_2 = (
    *_rules(
        "ational:ate tional:tion enci:ence anci:ance izer:ize bli:ble alli:al entli:ent eli:e "
        "ousli:ous ization:ize ation:ate ator:ate alism:al iveness:ive fulness:ful ousness:ous "
        "aliti:al iviti:ive biliti:ble fulli:ful",
        _is_positive,
    ),
    ("logi", "log", lambda rest: _is_positive(rest + "l")),
)
_STEP_3 = _rules("icate:ic ative: alize:al iciti:ic ical:ic ful: ness:", _is_positive)
_STEP_4 = (
    *_rules("al: ance: ence: er: ic: able: ible: ant: ement: ment: ent:", _is_long),
    ("ion", "", _after_s_or_t),
    *_rules("ou: ism: ate: iti: ous: ive: ize:", _is_long),
)
