"""What a person is called besides, and texts in which it takes the place of the name."""

import re
from collections.abc import Callable, Iterable

from expunge.requests.names import PARTICLES

TITLES = frozenset({"dr", "lady", "lord", "miss", "mr", "mrs", "ms", "mx", "prof", "professor"}) | {
    "dame", "sir", "st",
}  # fmt: skip
"""Words in front of a name, without their full stop."""

SUFFIXES = frozenset({"jr", "sr", "ii", "iii", "iv", "phd", "md", "esq"})
"""Words behind a name, without their full stop."""


def short_names(name: str) -> tuple[str, ...]:
    """The surname with its small words, and the same behind the initials of the other names.

    Args:
        name: A full name, given names first. Titles and suffixes are left out.

    Returns:
        None of them for a name of a single word, which is short already.

    Example:
        >>> short_names("Dr. Ludwig Emil van Dorn Jr.")
        ('van Dorn', 'L. E. van Dorn')
    """
    words = [word.strip(",") for word in name.split()]
    words = [word for word in words if _plain(word) not in TITLES | SUFFIXES | {""}]
    surname = next(
        (at for at in range(1, len(words)) if _plain(words[at]) in PARTICLES), len(words) - 1
    )
    if surname < 1:
        return ()
    family = " ".join(words[surname:])
    initials = " ".join(f"{word[0].upper()}." for word in words[:surname])
    return tuple(short for short in (family, f"{initials} {family}") if short != name)


def called(text: str, names: Iterable[str], otherwise: Callable[[str], str]) -> str:
    """A text with the longest of the names that stands in it, in any case, said otherwise.

    Args:
        text: Where the name stands.
        names: Names to look for, as whole words.
        otherwise: From the name, as it is written there, to what takes its place.

    Example:
        >>> called("Where was Mira Voss born?", ["Voss", "Mira Voss"], str.upper)
        'Where was MIRA VOSS born?'
    """
    for name in sorted(filter(None, names), key=len, reverse=True):
        pattern = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
        if pattern.search(text):
            return pattern.sub(lambda found: otherwise(found[0]), text)
    return text


def _plain(word: str) -> str:
    return word.strip(".").lower()
