"""Questions about nobody in particular: names and years invented anew."""

import re
from collections.abc import Iterator, Sequence

from expunge.core.rng import generator
from expunge.requests.invent import invent, name_words, renamed, renaming
from expunge.requests.names import capitalised
from expunge.requests.rows import Row

_YEAR = re.compile(r"(?<!\w)(?:1\d|20)\d\d(?!\w)")


def anonymous(text: str, names: Sequence[str], corpus: str, *, count: int, seed: int) -> list[str]:
    """Versions of a text that are about somebody else each time.

    The subject gets another name, and so does whatever else is written like a name; within one
    version a word is always replaced by the same. A year becomes another year.

    Args:
        text: The text.
        names: How its subject is called, the full name first; none if that is not known.
        corpus: What no invented name may stand in, in lower case.
        count: How many versions.
        seed: Of names and years.

    Returns:
        The versions; none where the text has no name and no year.
    """
    invented, draw = invent(corpus, seed), generator(seed, "years")
    found = []
    for _ in range(count):
        words = _others(text, names, invented)
        years = dict.fromkeys(_YEAR.findall(text))
        words |= {year: str(1900 + (int(year) + draw.integers(1, 100)) % 100) for year in years}
        if words:
            row = renamed(Row(id="", prompt=text, completion=""), words)
            found.append(row.turn.prompt)
    return [str(version) for version in found if version != text]


def _others(text: str, names: Sequence[str], invented: Iterator[str]) -> dict[str, str]:
    """Word or full name -> what stands there instead."""
    words: dict[str, str] = {}
    if names and name_words(names[0]):
        words = renaming(names, (next(invented), next(invented)), invented)
    for run in capitalised(text):
        words |= {word: next(invented) for word in name_words(run) if word not in words}
    return words
