"""A decider whose answers are known, for tests of guards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Answer = Callable[[str, str, Sequence[str]], "float | Sequence[float]"]
"""State, question and options -> the probability of yes, or one for each option."""


@dataclass(slots=True)
class Scripted:
    """A decider that says what a test wants, and keeps what it was asked.

    Attributes:
        answer: Called with the state, the question and the options: none for yes or no, the
            numbers of the levels for a rating.
        heard: The arguments of every call.
    """

    answer: Answer
    heard: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)

    def yes(self, state: str, question: str) -> float:
        """Say what the script says."""
        said = self._said(state, question, ())
        return said if isinstance(said, float | int) else said[-1]

    def choose(self, state: str, question: str, options: Sequence[str]) -> list[float]:
        """Say what the script says."""
        said = self._said(state, question, tuple(options))
        return [said] if isinstance(said, float | int) else list(said)

    def rate(self, state: str, question: str, levels: int) -> list[float]:
        """Say what the script says."""
        return self.choose(state, question, [str(level) for level in range(1, levels + 1)])

    def _said(
        self, state: str, question: str, options: tuple[str, ...]
    ) -> "float | Sequence[float]":
        self.heard.append((state, question, options))
        return self.answer(state, question, options)
