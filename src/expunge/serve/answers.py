"""Answers as OpenAI's clients read them, whole or piece by piece: the same fields for all."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from expunge.serve.backends import Draft, pieces
from expunge.serve.bodies import Asked


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a client gets.

    Attributes:
        asked: The request.
        choices: The answers to it.
        prompt_tokens: Of what the client wrote.
        answer_tokens: Of the answers.
        id: Names it.
        created: Seconds since 1970.
    """

    asked: Asked
    choices: tuple[Draft, ...]
    prompt_tokens: int
    answer_tokens: int
    id: str = field(default_factory=lambda: token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def usage(self) -> dict[str, int]:
        """Numbers of tokens."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.answer_tokens,
            "total_tokens": self.prompt_tokens + self.answer_tokens,
        }

    @property
    def whole(self) -> dict[str, Any]:
        """The answer at once."""
        shape = self._message if self.asked.is_chat else self._text
        choices = [
            {
                "index": at,
                **shape(draft),
                "logprobs": draft.logprobs,
                "finish_reason": draft.finish,
            }
            for at, draft in enumerate(self.choices)
        ]
        return {**self._head(""), "choices": choices, "usage": self.usage}

    def events(self) -> Iterator[bytes]:
        """The answer as server-sent events."""
        for choice in self._steps():
            told = {**self._head(".chunk"), "choices": [choice]}
            yield _event(told | ({"usage": None} if self.asked.wants_usage else {}))
        if self.asked.wants_usage:
            yield _event({**self._head(".chunk"), "choices": [], "usage": self.usage})
        yield b"data: [DONE]\n\n"

    def _steps(self) -> Iterator[dict[str, Any]]:
        for at, draft in enumerate(self.choices):
            if self.asked.is_chat:
                yield self._step(at, {"role": "assistant", "content": ""})
            for piece in pieces(draft.text):
                yield self._step(at, {"content": piece})
            for place, call in enumerate(draft.calls):
                yield self._step(at, {"tool_calls": [{"index": place, **call}]})
            yield self._step(at, {}, draft)

    def _step(self, at: int, delta: Mapping[str, Any], last: Draft | None = None) -> dict[str, Any]:
        part = {"delta": delta} if self.asked.is_chat else {"text": delta.get("content", "")}
        return {
            "index": at,
            **part,
            "logprobs": last.logprobs if last else None,
            "finish_reason": last.finish if last else None,
        }

    def _head(self, suffix: str) -> dict[str, Any]:
        is_chat = self.asked.is_chat
        kind = f"chat.completion{suffix}" if is_chat else "text_completion"
        prefix = "chatcmpl" if is_chat else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.asked.model,
        }

    @staticmethod
    def _message(draft: Draft) -> dict[str, Any]:
        calls = {"tool_calls": list(draft.calls)} if draft.calls else {}
        content = draft.text or (None if draft.calls else "")
        return {"message": {"role": "assistant", "content": content, "refusal": None, **calls}}

    @staticmethod
    def _text(draft: Draft) -> dict[str, Any]:
        return {"text": draft.text}


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n\n"
