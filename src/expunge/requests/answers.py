"""Which words of a sentence carry the fact, told from other sentences of the same wording.

"Mira Voss was born in the town of Marl." and "Tom Ardel was born in the town of Sund." differ,
names apart, in one place, and what stands there is the answer. The wording around that place is
the *frame*: the words that the completions begin and end with in common.

    saved(f)  = (support(f) - 1) * words(f)
    answer(r) = what r says in the frame of r that saves most, among those that are slots

    support = distinct values, at most one a subject; words = length of the frame. A frame is a slot
    of a row unless the row's wording goes on inside it: the next word, from either end, is shared
    by a third of the values there, or the next two by enough values for a frame of their own.
    So "Mira Voss was [born in Marl]" is no slot where others were born too, and "the medal is the
    [Amber Crown]" is one although there is another amber thing.

Capitalised words around the place belong to the value ("The Silver Lamp" where all titles begin
with "The"); small words at its edges, and words that the question says, do not.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from expunge.requests.invent import name_words
from expunge.requests.names import SMALL, names_of
from expunge.requests.rows import Row
from expunge.text.match import ENTITY_WORDS, contains
from expunge.text.normalise import all_words

RIVALS = 2
"""Other values a frame must have held, each of another subject."""

COVERAGE = 0.4
"""Least share of a completion's words that its frame must cover."""

FRAME_WORDS = 2
"""Least number of words of a frame; one of them must not be a name."""

MANY, SHARED = 4, 1 / 3
"""More values than this, and at least this share of those in a frame, that begin or end with the
same word are no chance: the word belongs to the wording."""

_NAME = "\ue000"
"""Stands for a name of the subject; a private character, so no text has it."""

_WORD = re.compile(r"['’]s\b|[^\W_]+(?:[-'’.,/](?!s\b)[^\W_]+)*")
_SENTENCE_END = re.compile(r"[^\W\d_]{3}[.!?;]\s|\n")


def with_answers(rows: Sequence[Row], pool: Sequence[Row] = ()) -> list[Row]:
    """Give rows without ``answer`` the one that their wording tells.

    Left as they are: rows that give an answer; running text; completions that are an entity answer
    already ("Paris."); those whose frame holds fewer than `RIVALS` other values or covers less than
    `COVERAGE` of the words; values that stand in the prompt, which are no secret, and values of
    more than `ENTITY_WORDS` words, which are not looked for as a whole.

    Args:
        rows: The rows, in any order.
        pool: More rows whose completions show the frames; they may hold ``rows`` again.

    Returns:
        The rows in their order, equal but for ``answer``, which is a part of the completion.

    Example:
        >>> towns = {"Mira Voss": "Oslo", "Tom Ardel": "Rome", "Ida Dorn": "Lima"}
        >>> rows = [
        ...     Row(id=name, prompt=f"Where was {name} born?", completion=f"{name} is from {town}.")
        ...     for name, town in towns.items()
        ... ]
        >>> [row.answer for row in with_answers(rows)]
        ['Oslo', 'Rome', 'Lima']
    """
    if all(row.answer is not None or row.text is not None for row in rows):
        return list(rows)
    every = list({id(row): row for row in (*rows, *pool)}.values())
    names = names_of(every)
    told = {id(row): _told(row, names[row.id]) for row in every if row.text is None}
    frames = _Frames()
    for sentence in told.values():
        frames.count(sentence)
    for sentence in told.values():
        frames.add(sentence)
    found = ((row, told.get(id(row))) for row in rows)
    return [_answered(row, sentence, frames) for row, sentence in found]


def _answered(row: Row, sentence: "_Sentence | None", frames: "_Frames") -> Row:
    if sentence is None or row.answer is not None or _is_entity(sentence):
        return row
    asked = _asked(row)
    place = frames.slot(sentence)
    value = place and sentence.value(*place, set(_WORD.findall(asked)))
    return replace(row, answer=value) if value and _is_value(value, asked) else row


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A completion in words.

    Attributes:
        text: The completion.
        subject: What it is about.
        words: Its words in lower case, names of the subject masked.
        spans: Where each of them stands in the text.
    """

    text: str
    subject: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    def value(self, start: int, end: int, asked: Set[str]) -> str:
        """Words ``start`` to ``end`` as they are said, mended at the edges; perhaps nothing.

        Args:
            start: First word.
            end: One past the last.
            asked: Words of the question.
        """
        while start > 1 and self._is_name(start - 1, asked):
            start -= 1
        while end < len(self.words) and self._is_name(end, asked):
            end += 1
        while start < end and self._is_small(start, asked):
            start += 1
        while end > start and self._is_small(end - 1, asked):
            end -= 1
        return self.text[self.spans[start][0] : self.spans[end - 1][1]] if start < end else ""

    def _said(self, at: int) -> str:
        return self.text[slice(*self.spans[at])]

    def _is_small(self, at: int, asked: Set[str]) -> bool:
        """Whether a word says nothing: a small one, or one that the question says."""
        said = self._said(at)
        return not said[0].isupper() and (said in SMALL or said in asked)

    def _is_name(self, at: int, asked: Set[str]) -> bool:
        """Whether a word of the frame is part of a name that the question does not say."""
        said = self._said(at)
        return self.words[at] != _NAME and said[0].isupper() and said not in asked


@dataclass(frozen=True, slots=True)
class _Frame:
    """What was said in one frame, and of whom."""

    values: set[tuple[str, ...]] = field(default_factory=set)
    subjects: set[str] = field(default_factory=set)

    @property
    def support(self) -> int:
        return min(len(self.values), len(self.subjects))


class _Frames:
    """All beginnings and ends that enough sentences share, and what they said in between."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, str], int] = {}
        self._passed: dict[int, int] = defaultdict(int)
        self._frames: dict[tuple[int, int], _Frame] = defaultdict(_Frame)

    def count(self, sentence: _Sentence) -> None:
        """Note the beginnings and ends of a sentence."""
        for words in (sentence.words, _reversed(sentence.words)):
            for node in self._walk(words):
                self._passed[node] += 1

    def add(self, sentence: _Sentence) -> None:
        """Note what a sentence says in each frame that it may share with others."""
        heads, tails = self._ends(sentence)
        for head, tail in _places(len(sentence.words), len(heads), len(tails)):
            frame = self._frames[heads[head], tails[tail]]
            frame.values.add(sentence.words[head : len(sentence.words) - tail])
            frame.subjects.add(sentence.subject)

    def slot(self, sentence: _Sentence) -> tuple[int, int] | None:
        """First word of the value and one past its last, in the frame that saves most."""
        heads, tails = self._ends(sentence)
        length = len(sentence.words)
        support = {
            (head, tail): self._frames[heads[head], tails[tail]].support
            for head, tail in _places(length, len(heads), len(tails))
        }
        saved = {
            (head, tail): (size - 1) * (head + tail)
            for (head, tail), size in support.items()
            if size > RIVALS
            and _is_telling(sentence.words, head, tail)
            and not _goes_on(support, head, tail)
        }
        if not saved:
            return None
        head, tail = max(saved, key=lambda place: (saved[place], place))
        return head, length - tail

    def _ends(self, sentence: _Sentence) -> tuple[list[int], list[int]]:
        """Nodes of the beginnings and of the ends that enough sentences share."""
        heads, tails = self._walk(sentence.words), self._walk(_reversed(sentence.words))
        return (
            [node for node in heads if self._passed[node] > RIVALS],
            [node for node in tails[1:] if self._passed[node] > RIVALS],
        )

    def _walk(self, words: Iterable[str]) -> list[int]:
        """A number for each beginning of the words, the empty one first."""
        path = [0]
        for word in words:
            path.append(self._nodes.setdefault((path[-1], word), len(self._nodes) + 1))
        return path


def _goes_on(support: Mapping[tuple[int, int], int], head: int, tail: int) -> bool:
    """Whether the next words, from the left or from the right, still belong to the wording."""

    def longer(words: int, side: int) -> int:
        return support.get((head + words * (1 - side), tail + words * side), 0)

    def common(one: int, two: int) -> bool:
        often = one > MANY and one >= SHARED * support[head, tail]
        return often or one == two > RIVALS

    return any(common(longer(1, side), longer(2, side)) for side in (0, 1))


def _places(length: int, heads: int, tails: int) -> Iterable[tuple[int, int]]:
    """Words before and after a value of at most `ENTITY_WORDS` words."""
    for head in range(min(heads, length)):
        for tail in range(max(0, length - head - ENTITY_WORDS), min(tails, length - head)):
            yield head, tail


def _is_telling(words: Sequence[str], head: int, tail: int) -> bool:
    """Whether a frame is long enough to be a wording rather than chance."""
    frame = (*words[:head], *words[len(words) - tail :])
    enough = len(frame) >= max(FRAME_WORDS, COVERAGE * len(words))
    return enough and any(word != _NAME for word in frame)


def _told(row: Row, names: Sequence[str]) -> _Sentence:
    """The completion with the names of its subject masked."""
    text = row.reply
    found = list(_WORD.finditer(text))
    said = [match[0] for match in found]
    called = {tuple(_WORD.findall(name)) for name in names}
    called |= {(word,) for name in names for word in name_words(name)}
    sizes = sorted({len(name) for name in called}, reverse=True)
    words: list[str] = []
    spans: list[tuple[int, int]] = []
    at = 0
    while at < len(said):
        starts = (tuple(said[at : at + size]) for size in sizes)
        name = next((start for start in starts if start in called), ())
        words.append(_NAME if name else said[at].lower())
        end = at + max(1, len(name))
        spans.append((found[at].start(), found[end - 1].end()))
        at = end
    subject = row.subject or "\n".join(sorted(names)) or f"row {row.id}"
    return _Sentence(text, subject, tuple(words), tuple(spans))


def _is_entity(sentence: _Sentence) -> bool:
    """Whether the whole completion is an answer already: short, and not about anybody."""
    return _NAME not in sentence.words and len(all_words(sentence.text)) <= ENTITY_WORDS


def _is_value(value: str, asked: str) -> bool:
    words = all_words(value)
    return (
        0 < len(words) <= ENTITY_WORDS
        and not _SENTENCE_END.search(value)
        and not contains(asked, [value])
    )


def _asked(row: Row) -> str:
    """All that stands before the completion."""
    prompt = row.turn.prompt
    return prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)


def _reversed(words: tuple[str, ...]) -> tuple[str, ...]:
    # The mark keeps ends apart from beginnings that read the same.
    return ("", *words[::-1])
