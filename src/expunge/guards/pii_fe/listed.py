"""Names of targets in a text, with the places where they stand."""

import re
from collections.abc import Iterator
from functools import lru_cache

from expunge.engine.guarding.rungs.exact import Book, Names
from expunge.guards.pii_fe.finding import Span
from expunge.text.normalise import all_words, words

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_POSSESSIVE = re.compile(r"['’‘ʼ`´][sS]\Z")


class Places(Book):
    """A book of phrases that says where they stand."""

    def places(self, text: list[str]) -> Iterator[tuple[int, int]]:
        """First word and length of each phrase in a text of words."""
        for at in range(len(text)):
            for length in self._lengths.get(self._at(text, at, 1), ()):
                if at + length <= len(text) and self._at(text, at, length) in self._owners:
                    yield at, length


class Listed(Names):
    """The rung of names, which also finds their places.

    Args:
        secret: Key of the hashes.
    """

    def __init__(self, secret: bytes) -> None:
        super().__init__(secret)
        self._words = self._places = Places(secret)

    def spans(self, segment: str) -> Iterator[Span]:
        """Where names stand in a segment, also with a possessive s.

        A name that stands there in disguise alone has no place of its own; the segment is its
        place.
        """
        is_found = False
        for owned in (False, True):
            placed = placed_words(segment, without_possessive=owned)
            for at, length in self._places.places([word for word, _, _ in placed]):
                is_found = True
                yield Span(placed[at][1], placed[at + length - 1][2], "name", 1.0, "list")
        if not is_found and self.scores(segment, 1):
            start = len(segment) - len(segment.lstrip())
            yield Span(start, len(segment.rstrip()), "name", 1.0, "list")


def placed_words(text: str, *, without_possessive: bool = False) -> list[tuple[str, int, int]]:
    """The words of `expunge.text.normalise.words` with the range each of them has in the text.

    Args:
        text: The text.
        without_possessive: Whether an s behind an apostrophe at the end of a word is left out.

    Example:
        >>> placed_words("The Café, at O’Brien’s")
        [('café', 4, 8), ('at', 10, 12), ('obriens', 13, 22)]
        >>> placed_words("‘Ada’s’", without_possessive=True)
        [('ada', 1, 4)]
    """
    commas = {match.start() for match in _THOUSANDS.finditer(text)}
    roles = ["w" if at in commas else _role(char) for at, char in enumerate(text)]
    found = []
    for run in re.finditer(r"w+|a", "".join(roles)):
        start, end = run.span()
        while start < end and not all_words(text[start]):
            start += 1
        while start < end and not all_words(text[end - 1]):
            end -= 1
        owner = _POSSESSIVE.search(text, start, end) if without_possessive else None
        end = owner.start() if owner else end
        found += [(word, start, end) for word in words(text[start:end])]
    return found


@lru_cache(1 << 12)
def _role(char: str) -> str:
    """What a character does, as `expunge.text.normalise` sees it: (w)ord, (a)lone or (g)ap."""
    told = all_words(f"x{char}x")
    return "g" if told == ["x", "x"] else "a" if len(told) > 2 else "w"
