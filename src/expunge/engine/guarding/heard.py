"""What stands in a prompt that a model reads, for guards that sit inside the model.

There a prompt is token ids. What was asked is read back from them: as text, without what the chat
template puts around it, and with the place of every token in it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = Sequence[int]
Span = tuple[int, int]

_MARKS = ("Qx7Ask", "Qx7Say", "Qx7End")
"""What a template is shown, to see what it puts around it."""


@dataclass(frozen=True, slots=True)
class Wrapping:
    """What a chat template writes around messages, specials included.

    Attributes:
        head: Before what the user says.
        foot: After the last thing the user says.
        parts: All of it, the longest first.
    """

    head: str
    foot: str
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """A prompt, read.

    Attributes:
        question: The last thing the user said; without a chat template, all of it.
        dialogue: All that was said.
        text: All of the prompt but special tokens.
        spans: For each token its range in ``text``; empty ranges for special tokens.
    """

    question: str
    dialogue: str
    text: str
    spans: tuple[Span, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """What a gate looks at."""
        return tuple(dict.fromkeys((self.question, self.dialogue)))

    def touching(self, phrases: Iterable[str]) -> list[bool]:
        """Which tokens overlap a place where one of some phrases stands."""
        places = [span for phrase in phrases for span in _places(self.text, phrase)]
        return [any(a < end and b > start for start, end in places) for a, b in self.spans]


class Listener:
    """Reads prompts.

    Attributes:
        special: Ids of special tokens, which nobody said.

    Args:
        tokenizer: The model's.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self.special = frozenset(tokenizer.all_special_ids)

    def hear(self, ids: Ids) -> Heard:
        """Read a prompt."""
        own = [token for token in ids if token not in self.special]
        text = self._decoded(own)
        spans = iter(self._spans(own, text))
        placed = tuple((0, 0) if token in self.special else next(spans) for token in ids)
        question, dialogue = self._unwrapped(ids, text)
        return Heard(question, dialogue, text, placed)

    def _unwrapped(self, ids: Ids, text: str) -> tuple[str, str]:
        """The question and the whole dialogue, without a template's own words."""
        wrapping = self._wrapping
        if wrapping is None:
            return text.strip(), text.strip()
        whole = self._decoded(ids)
        start = whole.rfind(wrapping.head)
        if start < 0:
            return text.strip(), text.strip()
        start += len(wrapping.head)
        end = whole.find(wrapping.foot, start) if wrapping.foot else -1
        question = whole[start:end] if end >= 0 else whole[start:]
        for part in (*wrapping.parts, *self._tokenizer.all_special_tokens):
            whole, question = whole.replace(part, "\n"), question.replace(part, "\n")
        lines = [line.strip() for line in whole.split("\n")]
        return question.strip(), "\n".join(line for line in lines if line)

    def _spans(self, ids: Ids, text: str) -> list[Span]:
        """The range of each token; asked of the tokenizer, or found by reading on and on."""
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if list(found["input_ids"]) == list(ids):
            return [(int(start), int(end)) for start, end in found["offset_mapping"]]
        ends = [len(self._decoded(ids[: at + 1]).rstrip("\ufffd")) for at in range(len(ids))]
        return list(zip([0, *ends], ends, strict=False))

    def _decoded(self, ids: Ids) -> str:
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    @cached_property
    def _wrapping(self) -> Wrapping | None:
        from jinja2 import TemplateError

        if not self._tokenizer.chat_template:
            return None
        roles = ("user", "assistant", "user")
        talk = [{"role": role, "content": mark} for role, mark in zip(roles, _MARKS, strict=True)]
        try:
            shown = self._tokenizer.apply_chat_template(
                talk, tokenize=False, add_generation_prompt=True
            )
        except TemplateError:
            return None
        parts = _between(str(shown))
        if parts is None:
            return None
        head = _common_end(parts[0], parts[2]).strip()
        others = {part.strip() for part in (head, parts[1], parts[2], parts[3])} - {""}
        ordered = tuple(sorted(others, key=lambda part: (-len(part), part)))
        return Wrapping(head, parts[3].strip(), ordered) if head else None


def _between(shown: str) -> list[str] | None:
    """What stands before, between and after the marks; None where one of them is missing."""
    parts = []
    for mark in _MARKS:
        before, found, shown = shown.partition(mark)
        if not found:
            return None
        parts.append(before)
    return [*parts, shown]


def _common_end(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return one[len(one) - length :]


def _places(text: str, phrase: str) -> Iterable[Span]:
    start = text.find(phrase) if phrase else -1
    while start >= 0:
        yield start, start + len(phrase)
        start = text.find(phrase, start + 1)
