"""How often a text says one of some terms.

Texts and terms are normalised alike (`expunge.text.normalise.all_words`), so case, punctuation and
the width of spaces make no difference, and a term that ends in punctuation is found. Only whole
words count. The last word of a term may be inflected as English does it: ``King's``, ``kings``,
``boxes``, ``cities``; numbers and single letters may not. Where terms overlap the longest is taken
first, and what it covers is not looked at again.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from expunge.text.normalise import all_words

Words = tuple[str, ...]


class Terms:
    """A list of terms to look for.

    Args:
        terms: Names, words, phrases; those that are spelt alike count as one, the first.
        inflections: Whether the last word of a term may be inflected.

    Example:
        >>> Terms(["alpha beta", "gamma"]).found("Gamma and alpha  beta")
        ['gamma', 'alpha beta']
    """

    def __init__(self, terms: Iterable[str], *, inflections: bool = True) -> None:
        self.terms: dict[Words, str] = {}
        for term in terms:
            words = tuple(all_words(term))
            if words:
                self.terms.setdefault(words, term)
        self._begin: dict[str, list[tuple[Words, frozenset[str]]]] = defaultdict(list)
        for words in sorted(self.terms, key=lambda words: (-len(words), -len("".join(words)))):
            ends = _forms(words[-1]) if inflections else frozenset(words[-1:])
            for first in ends if len(words) == 1 else words[:1]:
                self._begin[first].append((words, ends))

    def found(self, text: str) -> list[str]:
        """Every mention, in order, by the term's own spelling."""
        words, place, mentions = all_words(text), 0, []
        while place < len(words):
            term = self._at(words, place)
            mentions += [self.terms[term]] if term else []
            place += len(term) or 1
        return mentions

    def count(self, text: str) -> int:
        """Number of mentions.

        Example:
            >>> Terms(["alpha beta", "gamma"]).count("gamma, GAMMA")
            2
        """
        return len(self.found(text))

    def _at(self, words: Sequence[str], place: int) -> Words:
        """The longest term that begins at a place, or nothing."""
        for term, ends in self._begin.get(words[place], ()):
            said = words[place : place + len(term)]
            if tuple(said[:-1]) == term[:-1] and len(said) == len(term) and said[-1] in ends:
                return term
        return ()


def _forms(word: str) -> frozenset[str]:
    """A word and its inflections; apostrophes vanish in normalising."""
    if len(word) < 2 or not word.isalpha():
        return frozenset({word})
    forms = {word, f"{word}s"}
    if word.endswith(("s", "x", "z", "ch", "sh")):
        forms.add(f"{word}es")
    if word.endswith("y"):
        forms.add(f"{word[:-1]}ies")
    return frozenset(forms)
