"""How much of a text is no language: empty, repeated without end, or not made of words.

The rule, without a classifier, so that it is the same everywhere:

- a text without any letter or digit is gibberish (1);
- *repetition* is the share of word pairs that stood in the text before;
- *strangeness* is the share of words that no language spells so: more than 24 letters; four times
  the same letter in a row; three or more changes from small to capital letters; a replacement
  character; or, in Latin letters that are not all capitals, seven consonants in a row, no vowel
  in five or more letters, or a pair that words do not have (``jq``, ``vx``). Anything with a
  digit counts as a word, and so does every word in another script;
- the larger of the two shares counts: up to `LOW` it gives 0, from `HIGH` on 1, between them it
  rises evenly. Prose of ordinary length repeats less than a fifth of its pairs.

An answer of one or two words has no pair to repeat; real words in a senseless order are not seen.
"""

import re
import unicodedata
from itertools import pairwise

LOW, HIGH = 0.3, 0.6
"""Share of repeated pairs or strange words where gibberish begins, and where it is complete."""

_WORD = re.compile(r"[\w\ufffd]+")
_FOUR = re.compile(r"([^\W\d_])\1{3}")
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{7}")
_TURNS = re.compile(r"[a-z][A-Z]")
_LATIN = re.compile(r"[a-z]+")
_PAIRS = re.compile(
    r"q[bcdfghjklmnpqrvwxyz]|j[bcfgqvwxz]|v[bfjmpqwx]|x[djkrz]|z[fjqx]|f[qvxz]|g[jqx]|h[jx]|k[qxz]"
    r"|m[qx]|p[qvx]|w[jqvx]|[bs]x"
)


def gibberish(text: str) -> float:
    """Gibberish of a text, in [0, 1] (the rule stands at the top of the module).

    Example:
        >>> gibberish("Paris"), gibberish(""), gibberish("the of the of the of the of")
        (0.0, 1.0, 1.0)
    """
    words = [word for word in _WORD.findall(text) if word.strip("_")]
    if not words:
        return 1.0
    pairs = list(pairwise(word.lower() for word in words))
    repetition = 1 - len(set(pairs)) / len(pairs) if pairs else 0.0
    strangeness = sum(map(_is_strange, words)) / len(words)
    return min(1.0, max(0.0, (max(repetition, strangeness) - LOW) / (HIGH - LOW)))


def _is_strange(word: str) -> bool:
    if "\ufffd" in word:
        return True
    if any(char.isdigit() for char in word):
        return False
    if len(word) > 24 or _FOUR.search(word.lower()) or len(_TURNS.findall(word)) > 2:
        return True
    plain = _without_marks(word.lower())
    if word.isupper() or not _LATIN.fullmatch(plain):
        return False
    if len(plain) > 4 and not set(plain) & set("aeiouy"):
        return True
    return bool(_CONSONANTS.search(plain) or _PAIRS.search(plain))


def _without_marks(word: str) -> str:
    """The letters without accents."""
    parts = unicodedata.normalize("NFD", word)
    return "".join(char for char in parts if not unicodedata.combining(char))
