"""Which of several texts a text is nearest to, by the words they share."""

from collections.abc import Iterable, Sequence

from expunge.text.normalise import words


def shared_words(one: str, other: str) -> float:
    """Words that two texts share, as a share of those that either has.

    Example:
        >>> shared_words("Where was Ada born?", "When was Ada born?"), shared_words("", "Ada")
        (0.6, 0.0)
    """
    a, b = set(words(one)), set(words(other))
    return len(a & b) / max(1, len(a | b))


def nearest_first(text: str, others: Sequence[Iterable[str]]) -> list[int]:
    """Numbers of things that have several wordings each, the one with the nearest wording first.

    Args:
        text: What they are compared with.
        others: The wordings of each; of equally near things the first comes first.
    """
    near = [max((shared_words(text, one) for one in wordings), default=0.0) for wordings in others]
    return sorted(range(len(near)), key=lambda at: -near[at])
