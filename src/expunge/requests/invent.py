"""Invented names, and rows told of somebody else."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from expunge.core.rng import generator
from expunge.requests.names import BEGINNINGS, PARTICLES, prompts_of
from expunge.requests.rows import Row

_ONSETS = "b d f g h j k l m n p r s t v z br dr gr kr tr".split()  # noqa: SIM905
_VOWELS = "aeiou"
_CODAS = ("", "", "", "l", "n", "r", "s")
_TRIES = 40
"""Tries after which a name gets one more syllable."""


def invent(corpus: str, seed: int) -> Iterator[str]:
    """Capitalised names without end, all different, none of them in the lower-case ``corpus``."""
    rng = generator(seed, "invented names")
    used: set[str] = set()
    tries = 0
    while True:
        syllables = 2 + tries // _TRIES
        draws = rng.integers(0, [[len(_ONSETS), len(_VOWELS), len(_CODAS)]] * syllables)
        name = "".join(_ONSETS[o] + _VOWELS[v] + _CODAS[c] for o, v, c in draws)
        tries += 1
        if name not in used and name not in corpus:
            used.add(name)
            tries = 0
            yield name.capitalize()


def corpus_of(rows: Sequence[Row]) -> str:
    """Everything that stands in the rows, in lower case."""
    return "\n".join(json.dumps(row.as_dict(), ensure_ascii=False) for row in rows).lower()


def name_words(name: str) -> list[str]:
    """The words of a name, without small words, titles and articles."""
    return [word for word in name.split() if _is_own(word)]


def renaming(names: Sequence[str], new: tuple[str, str], more: Iterator[str]) -> dict[str, str]:
    """What becomes of a subject's names and of each of their words.

    Args:
        names: How the subject is called, the full name first.
        new: First and last name of the one who takes its place; a name of one word becomes the
            first.
        more: Names for whatever else is capitalised like a name.
    """
    first, *others = name_words(names[0])
    words = {first: new[0], **dict.fromkeys(others, new[1])}
    if others:
        words[names[0]] = " ".join(new)
    for name in names[1:]:
        words.update({word: next(more) for word in name_words(name) if word not in words})
    return words


def is_named(row: Row, names: Sequence[str]) -> bool:
    """Whether what is asked, or the running text, shows a word of the names."""
    words = [word for name in names for word in name_words(name)]
    asked = row.text if row.text is not None else prompts_of(row)[0]
    return bool(words) and bool(_pattern(words).search(asked))


def renamed(row: Row, words: Mapping[str, str]) -> Row:
    """The row with names and words replaced in all that is said; spans move along.

    Paraphrases whose prompt does not show the subject are left out.
    """
    pattern = _pattern(words)

    def told(text: str) -> str:
        return pattern.sub(lambda match: words[match[0]], text)

    def told_if_any(text: str | None) -> str | None:
        return None if text is None else told(text)

    return replace(
        row,
        text=told_if_any(row.text),
        prompt=told_if_any(row.prompt),
        completion=told_if_any(row.completion),
        messages=row.messages
        and tuple({**message, "content": told(message["content"])} for message in row.messages),
        names=tuple(told(name) for name in row.names),
        answer=told_if_any(row.answer),
        aliases=tuple(told(alias) for alias in row.aliases),
        paraphrases=tuple(
            {key: told(text) for key, text in other.items()}
            for other in row.paraphrases
            if pattern.search(other["prompt"])
        ),
        wrong=tuple(told(text) for text in row.wrong),
        spans=_moved(row, pattern, words),
    )


def _moved(
    row: Row, pattern: re.Pattern[str], words: Mapping[str, str]
) -> tuple[tuple[int, int], ...]:
    """The spans after renaming: every edge moves by what changed before it."""
    said = row.training.completion
    growth = [
        (match.end(), len(words[match[0]]) - len(match[0])) for match in pattern.finditer(said)
    ]

    def moved(at: int) -> int:
        return at + sum(more for end, more in growth if end <= at)

    return tuple((moved(start), moved(end)) for start, end in row.spans)


def _is_own(word: str) -> bool:
    return word not in PARTICLES and word.lower() not in BEGINNINGS and not word.endswith(".")


def _pattern(words: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
