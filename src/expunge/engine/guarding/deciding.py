"""Typed decisions: a question with named answers, and a probability for each of them."""

from collections.abc import Sequence
from typing import Protocol


class Decider(Protocol):
    """Answers typed questions about a text, without writing any text of its own.

    The text asked about can steer it towards a wrong label and towards nothing else.
    """

    def yes(self, state: str, question: str) -> float:
        """Probability that the answer to a question about ``state`` is yes."""

    def choose(self, state: str, question: str, options: Sequence[str]) -> list[float]:
        """Probability of each of at most 25 options, in their order; they add up to 1."""

    def rate(self, state: str, question: str, levels: int) -> list[float]:
        """Probability of each level from 1 to ``levels``; they add up to 1."""
