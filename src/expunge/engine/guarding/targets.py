"""Targets: what one request asks not to come out, whole enough to be revoked as one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from expunge.core.canonical import digest
from expunge.requests.rows import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What must not come out.

    Attributes:
        id: Its name; opaque, says nothing of whom it is about.
        rows: Rows that hold it; may be empty where there are names.
        aliases: How the subject is called, beside what the rows say.
        reason: Why, as whoever asked put it.
        created: When it was asked for, ISO 8601 in UTC; empty where that is not known.
    """

    id: str
    rows: tuple[Row, ...] = ()
    aliases: tuple[str, ...] = ()
    reason: str = ""
    created: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """How the subject is called, each name once."""
        named = (name for row in self.rows for name in row.names)
        return tuple(dict.fromkeys((*self.aliases, *named)))

    @property
    def questions(self) -> tuple[str, ...]:
        """What the rows ask, in all their wordings."""
        return tuple(dict.fromkeys(_asked(turn.prompt) for row in self.rows for turn in row.turns))

    @property
    def answers(self) -> tuple[str, ...]:
        """The facts themselves, in all their forms."""
        return tuple(dict.fromkeys(form for row in self.rows for form in row.forms))

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts that are about it: questions with their answers, running texts, else names."""
        told = [
            row.text or f"{_asked(row.turn.prompt)} {row.reply.strip()}".strip()
            for row in self.rows
        ]
        return tuple(dict.fromkeys(told)) or self.names


def targets_of(rows: Iterable[Row]) -> list[Target]:
    """Rows as targets: those of one subject are one target, any other row is one of its own.

    Returns:
        The targets, in the order in which their first rows come; the id of one is a hash of its
        subject, or of its row's id.
    """
    homes: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        home = ("subject", row.subject) if row.subject else ("row", row.id)
        homes.setdefault(home, []).append(row)
    return [Target(id=digest(list(home))[:16], rows=tuple(own)) for home, own in homes.items()]


def names_of(targets: Sequence[Target]) -> list[str]:
    """The names of several targets, each once."""
    return list(dict.fromkeys(name for target in targets for name in target.names))


def _asked(prompt: object) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])  # type: ignore[index]
