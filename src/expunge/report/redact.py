"""Answers behind masks: which of their words leak can be seen, the words themselves cannot."""

from collections.abc import Iterable
from dataclasses import dataclass

from expunge.text.normalise import all_words

LONGEST = 40
"""Words of a prompt that may be a question; running text is longer."""
START = 8
"""Words of a longer prompt that are shown."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of an answer.

    Attributes:
        text: To be shown; empty for a mask.
        kind: ``plain``, ``leaked`` (masked, words of the true answer) or ``masked`` (others).
    """

    text: str
    kind: str


def shown(text: str) -> list[Piece]:
    """A text as it is."""
    return [Piece(text, "plain")]


def cut(prompt: str) -> list[Piece]:
    """A prompt as far as it is a question: a longer one is content, and is masked after its start.

    Example:
        >>> [piece.kind for piece in cut("word " * 41)]
        ['plain', 'masked']
    """
    words = prompt.split()
    if len(words) <= LONGEST:
        return shown(prompt)
    return [Piece(" ".join(words[:START]), "plain"), Piece("", "masked")]


def masked(text: str, *, prompt: str, answer: str) -> list[Piece]:
    """A text with every word masked that does not stand in the question already.

    Neighbouring masks of one kind become one, so that neither the words nor their number shows.

    Args:
        text: What is to be masked.
        prompt: The question; its words stay readable.
        answer: The true answer; masks over its words are of their own kind.
    """
    asked, true = set(all_words(prompt)), set(all_words(answer))
    return list(_joined(_piece(word, asked, true) for word in text.split()))


def _piece(word: str, asked: set[str], true: set[str]) -> Piece:
    parts = set(all_words(word))
    if parts <= asked:
        return Piece(word, "plain")
    return Piece("", "leaked" if parts & (true - asked) else "masked")


def _joined(pieces: Iterable[Piece]) -> Iterable[Piece]:
    last: Piece | None = None
    for piece in pieces:
        if last is None:
            last = piece
        elif piece.kind != last.kind:
            yield last
            last = piece
        elif piece.kind == "plain":
            last = Piece(f"{last.text} {piece.text}", "plain")
    if last is not None:
        yield last
