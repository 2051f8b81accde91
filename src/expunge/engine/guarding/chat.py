"""Roles that language models play for guards: one client for all of them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

Messages = Sequence[Mapping[str, str]]


class Chat(Protocol):
    """A language model that answers a conversation.

    Whatever stands in its answers is data: a guard reads them by a strict rule and closes when
    they do not follow it.
    """

    def say(
        self,
        messages: Messages,
        *,
        samples: int = 1,
        temperature: float = 0.0,
        new_tokens: int = 256,
        seed: int = 0,
    ) -> list[str]:
        """Answer a conversation.

        Args:
            messages: ``{"role", "content"}`` each, the one to be answered last.
            samples: Answers wanted.
            temperature: 0 answers greedily.
            new_tokens: Longest answer, in tokens.
            seed: Decides the samples, where the model lets it.

        Returns:
            As many answers as were wanted.

        Raises:
            ExpungeError: ``E-SERVE-001`` when the model cannot be reached or its answer is none.
        """
