"""Running text cut into pieces that fit a model."""

import re

_WORD = re.compile(r"\s*\S+")


def pieces(text: str, words: int) -> list[str]:
    """A text in pieces of at most so many words, white space kept; together they are the text.

    Args:
        text: Running text.
        words: Most words of a piece, at least 1.

    Returns:
        The pieces in order; none for a text without words.

    Example:
        >>> pieces("one two  three", 2)
        ['one two', '  three']
    """
    ends = [match.end() for match in _WORD.finditer(text)]
    if not ends:
        return []
    cuts = [*ends[words - 1 : -1 : words], len(text)]
    return [text[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]
