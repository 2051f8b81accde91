"""A turn as one text, with the place of its completion: plain, or through a chat template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expunge.core.errors import ExpungeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Joint:
    """Prompt and completion as one text.

    Attributes:
        text: The whole text.
        start: Where what the model says begins; all before it is the prompt.
        place: Where the completion's own first character stands; left of it a template may let
            the model say more.
        end: Where the completion ends; what follows ends the turn.
        skipped: Characters at the beginning of the completion that the template cut off.
        templated: Whether special tokens stand in the text already.
        is_closed: Whether the end of the turn stands in the text already.
    """

    text: str
    start: int
    place: int
    end: int
    skipped: int = 0
    templated: bool = False
    is_closed: bool = False


def plain(prompt: str, completion: str) -> Joint:
    """The two strings exactly as given, one after the other."""
    return Joint(prompt + completion, len(prompt), len(prompt), len(prompt + completion))


def templated(tokenizer: "PreTrainedTokenizerBase", prompt: Messages, completion: str) -> Joint:
    """The conversation as the tokenizer's template renders it.

    The text up to `Joint.start` is the generation prompt, so what is trained is what will be
    asked for. Where the full rendering does not begin with the generation prompt (some templates
    add an empty thinking block to one of the two), the completion and its end of turn are put
    after the generation prompt. White space after the end of turn is left out.

    Raises:
        ExpungeError: ``E-MODEL-006`` when the template refuses the messages or swallows the
            completion.
    """
    before = opened(tokenizer, prompt)
    whole = _render(tokenizer, [*prompt, {"role": "assistant", "content": completion}], False)
    said, skipped = completion, 0
    if said not in whole:  # templates may trim
        said = completion.strip()
        skipped = completion.index(said)
    continues = whole.startswith(before)
    place = whole.find(said, len(before)) if continues else whole.rfind(said)
    if place < 0:
        raise ExpungeError(
            "E-MODEL-006",
            f"The chat template does not render the reply {completion[:40]!r} as it is.",
            "a template that shows the assistant's last reply after its generation prompt.",
            "Correct the template, or give the rows as 'prompt' and 'completion'.",
        )
    tail = whole[place + len(said) :].rstrip()
    head = whole[:place] if continues else before
    end = len(head + said)
    return Joint(head + said + tail, len(before), len(head), end, skipped, True, bool(tail))


def opened(tokenizer: "PreTrainedTokenizerBase", prompt: Messages) -> str:
    """The conversation up to the point where the assistant speaks.

    Raises:
        ExpungeError: ``E-MODEL-006`` when the template refuses the messages.
    """
    return _render(tokenizer, prompt, True)


def _render(tokenizer: "PreTrainedTokenizerBase", messages: Messages, opens: bool) -> str:
    from jinja2 import TemplateError

    conversation = [dict(message) for message in messages]
    try:
        text = tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=opens
        )
    except TemplateError as error:
        raise ExpungeError(
            "E-MODEL-006",
            f"The chat template refuses a conversation: {error}",
            "messages in the order that the template takes.",
            "Reorder the messages, or give the rows as 'prompt' and 'completion'.",
        ) from error
    return str(text)
