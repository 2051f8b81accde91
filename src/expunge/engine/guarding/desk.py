"""What a guard has before it: means when it is fitted, a desk when it works."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import xor
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError
from expunge.core.rng import derive, generator
from expunge.engine.guarding.chat import Chat
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.exchange import Exchange
from expunge.engine.guarding.ladder import Hit, Ladder
from expunge.requests.rows import Row

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from expunge.lm.subject import Subject

    Arrays = Mapping[str, npt.NDArray[Any]]

ANY = "*"
"""The role of a chat that plays whatever no other one does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """What a guard may use.

    Attributes:
        secret: Key of all hashes and seals of one store; 32 bytes.
        seed: All randomness derives from it.
        retain: Rows whose questions must be let through; thresholds are set on them.
        chats: Role -> who plays it; `ANY` for all that are not named.
        decider: Answers typed questions, where there is one.
        subject: The guarded model itself, past its guard, where it is in this process.
    """

    secret: bytes
    seed: int = 0
    retain: Sequence[Row] = ()
    chats: Mapping[str, Chat] = field(default_factory=dict)
    decider: Decider | None = None
    subject: "Subject | None" = None

    def chat(self, role: str) -> Chat:
        """Who plays a role.

        Raises:
            ExpungeError: ``E-SERVE-002`` when nobody does.
        """
        chat = self.chats.get(role) or self.chats.get(ANY)
        if chat is None:
            raise ExpungeError(
                "E-SERVE-002",
                f"A guard needs a language model in the role {role!r}, and there is none.",
                "a language model for every role of the guard's card.",
                f"Name one: --chat {role}=URL, or --chat URL for all roles.",
            )
        return chat


class Desk:
    """A guard at work: what it stored, and whom it may ask.

    Attributes:
        params: The guard's parameters.
        means: What it may use.
        ladder: Its gate.
        drafts: The gate for drafts of answers.
        entries: Target -> what the guard stored of it; changes while targets come and go.
        shared: What all targets share; JSON values.
        arrays: What all targets share; numbers.
        mark: Names the set of targets; changes with every one that comes or goes.
    """

    def __init__(self, params: Any, means: Means, ladder: Ladder, drafts: Ladder) -> None:
        self.params, self.means, self.ladder, self.drafts = params, means, ladder, drafts
        self.entries: dict[str, Mapping[str, Any]] = {}
        self.shared: Mapping[str, Any] = {}
        self.arrays: Arrays = {}
        self.mark = 0

    def hits(self, exchange: Exchange, draft: str | None = None) -> list[Hit]:
        """The targets an exchange is about, or those that the draft of its answer gives away."""
        return self.ladder.hits(exchange.texts) if draft is None else self.drafts.hits((draft,))

    def chat(self, role: str) -> Chat:
        """Who plays a role; see `Means.chat`."""
        return self.means.chat(role)

    def seed(self, exchange: Exchange, *names: str | int) -> int:
        """A seed for one exchange: asking again draws the same, so nothing averages out."""
        return derive(self.means.seed, exchange.name, self.mark, *names)

    def rng(self, exchange: Exchange, *names: str | int) -> "np.random.Generator":
        """Random numbers for one exchange; see `seed`."""
        return generator(self.seed(exchange, *names), "desk")


def mark_of(targets: Iterable[str]) -> int:
    """Names a set of targets, in whatever order; one more or less changes it by its own mark."""
    return reduce(xor, (derive(0, "target", id) for id in targets), 0)
