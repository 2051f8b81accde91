"""What answers behind the guards: a server elsewhere, or a model of this process."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from expunge.engine.guarding.exchange import Exchange
from expunge.serve.bodies import Asked

PIECE = re.compile(r"\s*(?:\w{1,5}|[^\w\s])|\s+")
"""About one token: up to five letters or digits with the space before them, or one sign."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """One answer of the model, before the guards have seen it.

    Attributes:
        text: What it says.
        finish: Why it ends (``stop length tool_calls content_filter``).
        calls: Calls of tools, as OpenAI writes them.
        logprobs: As OpenAI writes them; None where there are none.
    """

    text: str
    finish: str = "stop"
    calls: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    logprobs: Any = None


class Backend(Protocol):
    """A model, wherever it is.

    Attributes:
        offers: The stages it has room for.
        about: What the policy says of it.
    """

    offers: frozenset[str]
    about: Mapping[str, Any]

    def shaped(self, exchange: Exchange) -> Exchange:
        """An exchange in the form in which the model reads it; it says the same."""

    def check(self, asked: Asked) -> None:
        """Refuse what it could not answer, whether a guard fires or not.

        Raises:
            Fault: 400.
        """

    async def complete(self, asked: Asked, exchange: Exchange) -> list[Draft]:
        """Let the model answer.

        Args:
            asked: The request.
            exchange: What to ask; the request's own one where no guard has changed it.

        Returns:
            As many answers as were asked for.

        Raises:
            Fault: When there is none.
        """

    async def models(self) -> list[dict[str, Any]]:
        """What ``/v1/models`` lists."""

    def count_prompt(self, asked: Asked) -> int:
        """Tokens of what the client wrote, whatever the model was asked in the end."""

    def count(self, text: str) -> int:
        """Tokens of an answer."""

    def cut(self, text: str, most: int) -> str:
        """The first tokens of an answer, at most so many."""

    async def close(self) -> None:
        """Let go of what is held."""


def pieces(text: str) -> list[str]:
    """A text in parts of about a token; joined they are the text."""
    return PIECE.findall(text)
