"""Who plays the roles of a guard.

A card names under ``roles`` all roles that language models can play for its guard. Which of them
must be played, since nothing stands in for them, its file says by ``roles(params, decider)``; a
file without it needs them all.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError, raise_all
from expunge.engine.guarding.chat import Chat
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.desk import ANY, Means
from expunge.engine.guarding.talking import Local

if TYPE_CHECKING:
    from expunge.lm.subject import Subject

Chats = Mapping[str, Chat]


def needed(module: Any, params: Any, decider: Decider | None = None) -> tuple[str, ...]:
    """The roles of a guard that somebody must play under these parameters.

    Args:
        module: The guard's file.
        params: Its parameters.
        decider: Who answers typed questions, which can take the place of a role.
    """
    made = getattr(module, "roles", None)
    return tuple(module.CARD.get("roles", ()) if made is None else made(params, decider))


def unplayed(roles: Sequence[str], given: Chats) -> list[str]:
    """The roles that nobody plays yet."""
    return [] if ANY in given else [role for role in roles if role not in given]


def cast(roles: Sequence[str], given: Chats, subject: "Subject | None" = None) -> Chats:
    """Who plays the roles of a guard: those given, and for the rest the guarded model itself.

    Args:
        roles: Those that somebody must play.
        given: Role -> who was named for it.
        subject: The guarded model, where it may play; a model without a chat template cannot.

    Raises:
        ExpungeError: ``E-SERVE-002`` for each role that nobody plays.
    """
    missing = unplayed(roles, given)
    if missing and subject is not None and subject.encoder.has_template:
        itself = Local(subject)
        return {**given, **dict.fromkeys(missing, itself)}
    raise_all(lacking(missing))
    return given


def lacking(roles: Sequence[str]) -> list[ExpungeError]:
    """One problem for each role that nobody plays."""
    problems = []
    for role in roles:
        try:
            Means(secret=b"").chat(role)
        except ExpungeError as error:
            problems.append(error)
    return problems
