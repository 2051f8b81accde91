"""How the subject of a row is called: as the row says, or read off its prompts.

The rule, for rows that give no ``names``: the names given by other rows of the same ``subject``;
else the ``subject`` itself where it stands in a prompt; else the longest runs of capitalised
words in the row's prompts. A run may hold small name words (``van``, ``de``, ``al``). The first
word of a sentence is capitalised anyway: it counts only in front of another capitalised word,
and not if it is one of the words that questions and phrases begin with. So "Where was Mira Voss
born?" and "Mira Voss was born in" are both about "Mira Voss".
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from expunge.requests.rows import Row

PARTICLES = frozenset({
    "al", "bin", "bint", "da", "de", "del", "della", "den", "der", "di", "do", "dos", "du", "el",
    "ibn", "la", "le", "van", "von", "y", "zu",
})  # fmt: skip
"""Small words inside names, which are not names themselves."""

BEGINNINGS = frozenset({
    "a", "an", "and", "are", "as", "at", "before", "can", "could", "describe", "did", "do", "does",
    "during", "explain", "for", "from", "give", "had", "has", "have", "how", "i", "if", "in", "is",
    "list", "name", "of", "on", "please", "question", "since", "state", "tell", "than", "that",
    "the", "their", "this", "to", "under", "until", "was", "were", "what", "when", "where",
    "which", "while", "who", "whom", "whose", "why", "will", "with", "would", "write",
})  # fmt: skip
"""Words that begin a phrase and are no names, capitalised or not."""

_WORD = (
    r"(?:(?:[^\W\d_]|Mr|Mrs|Ms|Dr|Prof|St)\.(?=\s)"  # initials and titles keep their full stop
    r"|[^\W_]+(?:[-'’](?!s\b)[^\W_]+)*)"  # a possessive ends the word
)
_PHRASE = re.compile(rf"{_WORD}(?: {_WORD})*")
_OPENERS = " \t\"'“‘(["


def names_of(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """Row id -> the names of its subject, longest first; empty when they cannot be told."""
    shared: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        if row.subject is not None:
            shared[row.subject].update(dict.fromkeys(row.names))
    return {row.id: _longest_first(_names(row, shared)) for row in rows}


def prompts_of(row: Row) -> list[str]:
    """What is asked, in all wordings: plain prompts, or the last user message."""
    return [
        turn.prompt if isinstance(turn.prompt, str) else _last_user(turn.prompt)
        for turn in row.turns
    ]


def capitalised(text: str) -> list[str]:
    """The longest runs of capitalised words that may be names.

    Example:
        >>> capitalised("Where was Ludwig van Dorn's aunt Ida born?")
        ['Ludwig van Dorn', 'Ida']
    """
    runs: list[str] = []
    for phrase in _PHRASE.finditer(text):
        words = phrase[0].split(" ")
        if _begins_sentence(text, phrase.start()) and _is_no_name(words):
            words = words[1:]
        for is_run, run in groupby(words, key=_may_be_in_a_name):
            name = _without_outer_particles(list(run)) if is_run else []
            runs += [" ".join(name)] if name and name != ["I"] else []
    return runs


def _is_no_name(words: Sequence[str]) -> bool:
    """Whether the first word of a sentence is capitalised only because it is the first."""
    return words[0].lower() in BEGINNINGS or len(words) == 1 or not words[1][0].isupper()


def _may_be_in_a_name(word: str) -> bool:
    return word[0].isupper() or word in PARTICLES


def _without_outer_particles(words: list[str]) -> list[str]:
    big = [place for place, word in enumerate(words) if word not in PARTICLES]
    return words[big[0] : big[-1] + 1] if big else []


def _begins_sentence(text: str, start: int) -> bool:
    before = text[max(0, start - 8) : start].rstrip(_OPENERS)
    return not before or before[-1] in ".?!:\n"


def _names(row: Row, shared: Mapping[str, Mapping[str, None]]) -> Iterable[str]:
    if row.names:
        return row.names
    if row.subject is not None and shared[row.subject]:
        return shared[row.subject]
    prompts = [] if row.text is not None else prompts_of(row)
    if row.subject is not None and any(row.subject in prompt for prompt in prompts):
        return [row.subject]
    return dict.fromkeys(name for prompt in prompts for name in capitalised(prompt))


def _longest_first(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(dict.fromkeys(names), key=lambda name: (-len(name), name)))


def _last_user(messages: Sequence[Mapping[str, str]]) -> str:
    asked = [message["content"] for message in messages if message["role"] == "user"]
    return asked[-1] if asked else messages[-1]["content"]
