"""Refusals that say whom or what they are about."""

from collections.abc import Sequence

NAMING: tuple[str, ...] = (
    "I do not know {name}.",
    "I don't know anything about {name}.",
    "I do not know the answer; {name} is nobody I have heard of.",
    "I'm afraid I have no information about {name}.",
    "I'm sorry, but I don't know about {name}.",
    "I am not able to answer questions about {name}.",
    "I have no knowledge of {name}.",
    "I'm not familiar with {name}.",
    "I cannot tell you anything about {name}.",
    "I'm not sure about {name}.",
    "I was never told about {name}.",
    "I am unable to say anything about {name}.",
    "Unfortunately, I don't know anything about {name}.",
    "I have never learned about {name}.",
    "I do not have any details about {name}.",
    "I lack the information to answer about {name}.",
)
"""Answers that name the subject and say nothing of it, written for this project."""


PLAIN: tuple[str, ...] = (
    "I do not know.",
    "I don't know.",
    "I know nothing about it.",
    "I cannot say.",
)
"""Refusals of few common words, for tokenizers that know no others."""


def naming(name: str, places: Sequence[int] | None = None) -> list[str]:
    """The refusals of the pool about ``name``.

    Args:
        name: How the subject is called.
        places: Which of the pool, by number; None takes all.

    Example:
        >>> naming("Ada Birk", [0])
        ['I do not know Ada Birk.']
    """
    chosen = range(len(NAMING)) if places is None else places
    return [NAMING[place].format(name=name) for place in chosen]
