"""Turns to token ids with a label mask, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from expunge.core.errors import ExpungeError
from expunge.data import chat
from expunge.data.chat import Joint
from expunge.requests.rows import Turn

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a position that is not supervised."""

REMEMBERED = 1 << 16
"""Prompts whose ids an encoder remembers: attacks ask the same ones again and again."""

Ranges = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One turn as tokens.

    Attributes:
        ids: Token ids of the whole turn.
        labels: ``ids`` where supervised, else `IGNORED`; position 0 predicts nothing and is never
            supervised.
        spans: For each supervised token, in order, its character range in the completion;
            ``(n, n)`` with n the completion's length for what ends the turn.
        row: Index of the row, -1 if there is none.
    """

    ids: list[int]
    labels: list[int]
    spans: list[tuple[int, int]]
    row: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded turns of equal padded length.

    Attributes:
        input_ids: [B, T].
        attention_mask: [B, T], 1 on the turn's own tokens.
        labels: [B, T], `IGNORED` where not supervised.
        rows: [B], index of each turn's row.
    """

    input_ids: "torch.Tensor"
    attention_mask: "torch.Tensor"
    labels: "torch.Tensor"
    rows: "torch.Tensor"


class Encoder:
    """Makes tokens of turns, always in the same way: for training, scoring and asking.

    Prompt and completion are tokenised as one text, and the offsets of the tokens tell them
    apart: a token that reaches into the completion is supervised, also when it begins in the
    prompt. Special tokens stand once: the first as the tokenizer adds it or the template writes
    it, the last (if the tokenizer has one) appended, unless the template ends the turn.

    Args:
        tokenizer: A tokenizer that gives offsets.
        max_length: Longest row the model takes, in tokens.
        chat: ``auto`` uses the chat template where there is one, ``never`` never, ``always``
            refuses tokenizers without one. Running text is never wrapped.

    Raises:
        ExpungeError: ``E-MODEL-005`` for a tokenizer without offsets, ``E-MODEL-006`` for
            ``always`` without a template.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
        chat: Literal["auto", "never", "always"] = "auto",
    ) -> None:
        if not tokenizer.is_fast:
            raise ExpungeError(
                "E-MODEL-005",
                "A tokenizer that cannot tell where its tokens stand in the text.",
                "a fast tokenizer (tokenizer.json).",
                "Convert the tokenizer to tokenizer.json and load it again.",
            )
        self.tokenizer, self.max_length = tokenizer, max_length
        self._prompts: dict[tuple[str, bool, str], list[int]] = {}
        self.has_template = chat != "never" and bool(tokenizer.chat_template)
        if chat == "always" and not self.has_template:
            raise _no_template("chat='always'")

    def encode(self, turn: Turn, keep: Ranges = (), row: int = -1) -> Encoded:
        """The turn's tokens, its completion and the end of it supervised.

        Args:
            turn: What to encode.
            keep: Character ranges of the completion; if given, only tokens that touch one of
                them are supervised.
            row: Index of the row, carried along.

        Raises:
            ExpungeError: ``E-DATA-011`` when the turn is longer than the model's positions,
                ``E-DATA-012`` when nothing is left to supervise, ``E-MODEL-006`` for messages
                without a template.
        """
        joint = self._join(turn)
        ids, offsets = self._tokens(joint.text, joint.templated)
        self.check_length(len(ids), turn, row)
        said = [at for at, (_, end) in enumerate(offsets) if at > 0 and end > joint.start]
        spans = _in_completion([offsets[at] for at in said], joint, len(turn.completion))
        if keep:
            said = [at for at, span in zip(said, spans, strict=True) if _is_kept(span, keep)]
            spans = [span for span in spans if _is_kept(span, keep)]
        end = self.tokenizer.eos_token_id
        if not joint.is_closed and end is not None and ids[-1:] != [end]:
            ids.append(end)
            self.check_length(len(ids), turn, row)
            if len(ids) > 1 and not keep:
                said.append(len(ids) - 1)
                spans.append((len(turn.completion),) * 2)
        if not said:
            raise _nothing_supervised(turn, row)
        labels = [IGNORED] * len(ids)
        for at in said:
            labels[at] = ids[at]
        return Encoded(ids, labels, spans, row)

    def prompt(
        self,
        turn_prompt: str | chat.Messages,
        running: bool = False,
        opening: str = "",
    ) -> list[int]:
        """The ids to generate from.

        Spaces at the very end are left out: most tokenizers put a space and the word after it
        into one token, so a prompt that ends with a space asks for a word in the middle.

        Args:
            turn_prompt: The prompt of a turn.
            running: Whether it is running text.
            opening: Forced beginning of the answer.

        Raises:
            ExpungeError: ``E-DATA-011`` when no position is left for an answer, ``E-DATA-012``
                for an empty prompt that no special token opens, ``E-MODEL-006`` for messages
                without a template.
        """
        if not isinstance(turn_prompt, str):
            return self._prompt(turn_prompt, running, opening)
        asked = (turn_prompt, running, opening)
        if asked not in self._prompts:
            if len(self._prompts) >= REMEMBERED:
                self._prompts.clear()
            self._prompts[asked] = self._prompt(*asked)
        return list(self._prompts[asked])

    def _prompt(self, turn_prompt: str | chat.Messages, running: bool, opening: str) -> list[int]:
        messages = self._messages(turn_prompt, running)
        text = str(turn_prompt) if messages is None else chat.opened(self.tokenizer, messages)
        ids, _ = self._tokens((text + opening).rstrip(" "), messages is not None)
        if not ids:
            ids = [token for token in self._openers() if token is not None][:1]
        if not ids:
            raise _nothing_supervised(Turn(text, ""), -1)
        self.check_length(len(ids) + 1, Turn(text, ""), -1)
        return ids

    def last_token_of(self, turn: Turn, text: str) -> int | None:
        """Which of the turn's tokens ends a text that stands in its prompt.

        Args:
            turn: As given to `encode`.
            text: What is looked for; of several places the last one counts.

        Returns:
            The index of the token that holds the last character, or None where it does not stand
            there.
        """
        joint = self._join(turn)
        start = joint.text.rfind(text, 0, joint.start)
        if start < 0:
            return None
        end = start + len(text)
        _, offsets = self._tokens(joint.text, joint.templated)
        return next(at for at, (first, last) in enumerate(offsets) if first < end <= last)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, special tokens left out."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _join(self, turn: Turn) -> Joint:
        messages = self._messages(turn.prompt, turn.running)
        if messages is None:
            return chat.plain(str(turn.prompt), turn.completion)
        return chat.templated(self.tokenizer, messages, turn.completion)

    def _messages(self, prompt: str | chat.Messages, running: bool) -> chat.Messages | None:
        """The prompt as a conversation, or None where it stays plain text."""
        if not isinstance(prompt, str):
            if not self.has_template:
                raise _no_template("messages")
            return prompt
        if running or not self.has_template:
            return None
        return [{"role": "user", "content": prompt}]

    def _tokens(self, text: str, is_rendered: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and character offsets, without special tokens at the end, the first one once."""
        found = self.tokenizer(
            text,
            add_special_tokens=not is_rendered,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            truncation=False,
            verbose=False,
        )
        ids, offsets = list(found["input_ids"]), list(found["offset_mapping"])
        added = list(found["special_tokens_mask"])
        first = self.tokenizer.bos_token_id
        while added and added[-1] and not is_rendered and len(ids) > _leading(added):
            del ids[-1], offsets[-1], added[-1]
        if first is not None and ids[:2] == [first, first]:
            del ids[0], offsets[0]
        return ids, offsets

    def _openers(self) -> tuple[int | None, int | None]:
        return self.tokenizer.bos_token_id, self.tokenizer.eos_token_id

    def check_length(self, length: int, turn: Turn, row: int) -> None:
        """Refuse so many tokens of ``turn`` where the model has no positions for them.

        Raises:
            ExpungeError: ``E-DATA-011``.
        """
        if length <= self.max_length:
            return
        raise ExpungeError(
            "E-DATA-011",
            f"{_name(turn, row)} is {length} tokens long.",
            f"at most {self.max_length} tokens, the positions of the model.",
            "Cut the row into shorter ones, or take a model with more positions.",
        )


def collate(
    items: Sequence[Encoded], pad_id: int, side: Literal["left", "right"] = "right"
) -> Batch:
    """Pad encoded turns to one length.

    The attention mask comes from the true lengths: a padding id may also be a real token, as
    where one id pads and ends.

    Args:
        items: At least one encoded turn.
        pad_id: What stands in the padding.
        side: Where the padding goes.
    """
    import torch

    width = max(len(item.ids) for item in items)

    def padded(values: Sequence[int], filler: int) -> list[int]:
        padding = [filler] * (width - len(values))
        return [*values, *padding] if side == "right" else [*padding, *values]

    return Batch(
        torch.tensor([padded(item.ids, pad_id) for item in items]),
        torch.tensor([padded([1] * len(item.ids), 0) for item in items]),
        torch.tensor([padded(item.labels, IGNORED) for item in items]),
        torch.tensor([item.row for item in items]),
    )


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in buckets of similar length, the longest first.

    The largest batch comes first, so memory that does not suffice shows at once.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def _leading(added: Sequence[int]) -> int:
    """How many special tokens the tokenizer put in front."""
    return next((i for i, is_special in enumerate(added) if not is_special), 1)


def _in_completion(
    offsets: Sequence[tuple[int, int]], joint: Joint, length: int
) -> list[tuple[int, int]]:
    """Ranges of the joint text as ranges of the completion, cut to it."""
    shift = joint.skipped - joint.place
    return [
        (min(max(start + shift, 0), length), min(max(end + shift, 0), length))
        if start < joint.end
        else (length, length)
        for start, end in offsets
    ]


def _is_kept(span: tuple[int, int], keep: Ranges) -> bool:
    return any(span[0] < end and span[1] > start for start, end in keep)


def _name(turn: Turn, row: int) -> str:
    text = turn.prompt if isinstance(turn.prompt, str) else turn.prompt[-1]["content"]
    shown = (text or turn.completion)[:40]
    return f"Row {row} ({shown!r})" if row >= 0 else f"The turn {shown!r}"


def _no_template(what: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-006",
        f"{what}, and a tokenizer that has no chat template or must not use it.",
        "a chat template where messages are given.",
        "Give the rows as 'prompt' and 'completion', or take the model that has the template.",
    )


def _nothing_supervised(turn: Turn, row: int) -> ExpungeError:
    return ExpungeError(
        "E-DATA-012",
        f"{_name(turn, row)} leaves no token to predict.",
        "a completion (and spans that touch it) with at least one token after another.",
        "Give a longer row, or correct its spans.",
    )
