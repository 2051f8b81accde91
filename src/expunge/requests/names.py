"""How the subject of a row is called: as the row says, or read off its prompts.

The rule, for rows that give no ``names``: the names given by other rows of the same ``subject``;
else the ``subject`` itself, if it is capitalised and stands in a prompt; else the longest runs of
capitalised words in the prompts: those that most of the subject's rows share; without one, or if
nothing is shared, those of the row. A run may hold small name words (``van``, ``de``, ``al``).
The first word of a sentence is capitalised anyway: it counts only in front of another capitalised
word, and not if it is one of the words that questions and phrases begin with. So "Where was Mira
Voss born?" and "Mira Voss was born in" are both about "Mira Voss".
"""

import re
from collections import Counter, defaultdict
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

SMALL = BEGINNINGS | {"as", "be", "by", "her", "his", "it", "its", "no", "not", "or", "she", "yes"}
"""Words that say nothing about what a sentence is about."""

_WORD = (
    r"(?:(?:[^\W\d_]|Mr|Mrs|Ms|Dr|Prof|St)\.(?=\s)"  # initials and titles keep their full stop
    r"|[^\W_]+(?:[-'’](?!s\b)[^\W_]+)*)"  # a possessive ends the word
)
_PHRASE = re.compile(rf"{_WORD}(?: {_WORD})*")
_OPENERS = " \t\"'“‘(["


def names_of(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """Row id -> the names of its subject, longest first; empty when they cannot be told."""
    given: dict[str, dict[str, None]] = defaultdict(dict)
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.subject is not None:
            given[row.subject].update(dict.fromkeys(row.names))
            seen[row.subject].update(_runs(row))
    shared = {
        subject: tuple(names) or _most_shared(seen[subject]) for subject, names in given.items()
    }
    return {row.id: _longest_first(_names(row, given, shared)) for row in rows}


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


def _names(
    row: Row, given: Mapping[str, Mapping[str, None]], shared: Mapping[str, Sequence[str]]
) -> Iterable[str]:
    if row.names or row.subject is None:
        return row.names or _runs(row)
    if not given[row.subject] and _is_called(row, row.subject):
        return [row.subject]
    return shared[row.subject] or _runs(row)


def _is_called(row: Row, subject: str) -> bool:
    """Whether the subject's id is a name that the row asks by, not only some letters."""
    whole = re.compile(rf"(?<!\w){re.escape(subject)}(?!\w)")
    return subject[:1].isupper() and any(whole.search(prompt) for prompt in _asked(row))


def _most_shared(seen: Counter[str]) -> tuple[str, ...]:
    """The runs that stand in at least half as many rows as the commonest, and in two."""
    most = max(seen.values(), default=0)
    return tuple(run for run, rows in seen.items() if rows > 1 and 2 * rows >= most)


def _runs(row: Row) -> list[str]:
    """The distinct runs of capitalised words in what the row asks."""
    return list(dict.fromkeys(run for prompt in _asked(row) for run in capitalised(prompt)))


def _asked(row: Row) -> list[str]:
    return [] if row.text is not None else prompts_of(row)


def _longest_first(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(dict.fromkeys(names), key=lambda name: (-len(name), name)))


def _last_user(messages: Sequence[Mapping[str, str]]) -> str:
    asked = [message["content"] for message in messages if message["role"] == "user"]
    return asked[-1] if asked else messages[-1]["content"]
