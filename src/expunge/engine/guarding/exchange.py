"""One exchange: what a client asks, and what takes the place of an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from expunge.requests.rows import Turn


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a client asks.

    Attributes:
        messages: The conversation, the question last; a plain prompt is one message of the user.
        plain: Whether it came as one text instead of a conversation.
        running: Plain running text, never wrapped in a chat template.
        foreign: Places of messages that hold retrieved or tool text, in ``messages``.
        raw: What a gate must look at beside the messages: the texts as they came, before anything
            was taken out of them.
        caller: Role of whoever asks, as the door knows it and never as the client says; empty
            where it does not.
    """

    messages: tuple[Mapping[str, str], ...]
    plain: bool = False
    running: bool = False
    foreign: tuple[int, ...] = ()
    raw: tuple[str, ...] = ()
    caller: str = ""

    @classmethod
    def of(cls, turn: Turn) -> "Exchange":
        """The exchange a turn asks for."""
        if isinstance(turn.prompt, str):
            message = {"role": "user", "content": turn.prompt}
            return cls._raw(cls((message,), plain=True, running=turn.running))
        return cls.talk(turn.prompt)

    @classmethod
    def talk(cls, messages: Sequence[Mapping[str, str]]) -> "Exchange":
        """The exchange of a conversation; what tools said is foreign text."""
        told = tuple(dict(message) for message in messages)
        foreign = tuple(i for i, m in enumerate(told) if m["role"] == "tool")
        return cls._raw(cls(told, foreign=foreign))

    @staticmethod
    def _raw(fresh: "Exchange") -> "Exchange":
        return replace(fresh, raw=fresh.texts)

    @property
    def turn(self) -> Turn:
        """The exchange as something a model is asked; a plain one stays one text."""
        if self.plain:
            return Turn("\n\n".join(m["content"] for m in self.messages), "", running=self.running)
        return Turn(self.messages, "")

    @property
    def question(self) -> str:
        """The last thing the user said; the last message where the user said nothing."""
        own = [m["content"] for m in self.messages if m["role"] == "user"]
        return own[-1] if own else self.messages[-1]["content"]

    @property
    def dialogue(self) -> str:
        """All that was said, by whomever, a line each."""
        return "\n".join(m["content"] for m in self.messages)

    @property
    def texts(self) -> tuple[str, ...]:
        """What a gate looks at: the question, all of the user, the dialogue, and what came raw."""
        own = "\n".join(m["content"] for m in self.messages if m["role"] == "user")
        return tuple(dict.fromkeys((self.question, own or self.question, self.dialogue, *self.raw)))

    @property
    def name(self) -> str:
        """Names the exchange by what is said in it."""
        parts = [part for m in self.messages for part in (m["role"], m["content"])]
        return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    def asking(self, text: str) -> "Exchange":
        """The same exchange with another question in the place of the user's last one."""
        at = max((i for i, m in enumerate(self.messages) if m["role"] == "user"), default=-1)
        return self.saying(at % len(self.messages), text)

    def saying(self, at: int, text: str) -> "Exchange":
        """The same exchange with another content of one message."""
        changed = {**self.messages[at], "content": text}
        return replace(self, messages=(*self.messages[:at], changed, *self.messages[at + 1 :]))

    def instructed(self, text: str) -> "Exchange":
        """The same exchange under one more instruction.

        It stands in the system message, behind what stands there already, so that nothing the
        user wrote comes after it in the same role; in a plain exchange before the text.
        """
        first = self.messages[0]
        if first["role"] == "system":
            return self.saying(0, f"{first['content']}\n\n{text}")
        order = {"role": "system", "content": text}
        moved = tuple(place + 1 for place in self.foreign)
        return replace(self, messages=(order, *self.messages), foreign=moved)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the client gets instead of the model's answer.

    Attributes:
        text: What is said.
        rule: Which rule of the guard decided; for whoever runs the guard, never for the client.
    """

    text: str
    rule: str
