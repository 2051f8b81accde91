"""Language models whose lines are known, for tests of guards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Said = str | Sequence[str]


@dataclass(slots=True)
class Scripted:
    """A chat that says what a test wants, and keeps what it was asked.

    Attributes:
        answer: Called with the messages and the number of samples; gives one answer or as many as
            were wanted. A list gives its lines one call after the other.
        heard: The messages of every call.
    """

    answer: Callable[[Sequence[Mapping[str, str]], int], Said] | list[Said]
    heard: list[list[Mapping[str, str]]] = field(default_factory=list)

    def say(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        samples: int = 1,
        temperature: float = 0.0,
        new_tokens: int = 256,
        seed: int = 0,
    ) -> list[str]:
        """Say the next line."""
        del temperature, new_tokens, seed
        self.heard.append([dict(message) for message in messages])
        if isinstance(self.answer, list):
            said = self.answer[len(self.heard) - 1]
        else:
            said = self.answer(messages, samples)
        return [said] * samples if isinstance(said, str) else list(said)
