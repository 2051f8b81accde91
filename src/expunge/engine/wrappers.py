"""Wrappers: what is put around a method to replace some of its slots.

``--with ID``, ``--with ID:value`` or ``--with ID:name=value,name=value``. A value without a name,
which comes first, belongs to the parameter that the wrapper's card names under ``value``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from expunge.core.card import Card
from expunge.core.errors import ExpungeError, Problems, nearest
from expunge.core.registry import methods
from expunge.engine.method import Wrapper, clashes

WRAPPER = "wrapper"
"""The kind of their cards."""

_NEXT = re.compile(r",(?=\s*[A-Za-z_][\w-]*\s*=)")


@dataclass(frozen=True, slots=True)
class Wrapped:
    """One wrapper as it was asked for.

    Attributes:
        id: Its id.
        params: Its own parameters, resolved.
    """

    id: str
    params: Any

    def as_dict(self) -> dict[str, Any]:
        """The JSON value of ``change.json``."""
        return {"id": self.id, "params": asdict(self.params)}


def read_wrappers(
    texts: Sequence[str], around: str | None
) -> tuple[tuple[Wrapped, ...], list[ExpungeError]]:
    """Read every ``--with``, and check that they go together.

    Args:
        texts: As they were given.
        around: Id of the method, where that is known.

    Returns:
        The wrappers, and all that is wrong with them.
    """
    found: list[Wrapped] = []
    problems: list[ExpungeError] = []
    for text in texts:
        try:
            found.append(read_wrapper(text))
        except Problems as several:
            problems += several.problems
        except ExpungeError as one:
            problems.append(one)
    problems += clashes([module for module, _ in modules_of(found)])
    if texts and around is not None and not _trains_to_forget(methods.card(around)):
        problems.append(
            ExpungeError(
                "E-USE-006",
                f"--with {texts[0]} around {around}, which trains on no forget rows.",
                "a method that does.",
                "Leave --with out, or name another --method.",
            )
        )
    return tuple(found), problems


def read_wrapper(text: str) -> Wrapped:
    """Read one ``--with``.

    Raises:
        ExpungeError: ``E-USE-001`` for an unknown id, ``E-USE-002`` and ``E-USE-003`` for
            parameters that are unknown or out of range.
    """
    name, colon, given = text.partition(":")
    card = _card(name)
    overrides = _overrides(card, given.strip()) if colon else {}
    return Wrapped(card.id, methods.params(card.id, overrides))


def modules_of(wrappers: Sequence[Wrapped]) -> list[Wrapper]:
    """Module and parameters of each, as `GradientMethod.assemble` takes them."""
    return [(methods.load(wrapper.id), wrapper.params) for wrapper in wrappers]


def _trains_to_forget(card: Card) -> bool:
    return "forget" in card.needs and card.kind not in ("edit", "reinforcement")


def _card(name: str) -> Card:
    known = [card.id for card in methods.cards() if card.kind == WRAPPER]
    id = name.strip().replace("_", "-")
    if id in known:
        return methods.card(id)
    raise ExpungeError(
        "E-USE-001",
        f"There is no wrapper {name!r}.",
        "one of the installed wrappers.",
        nearest(id, known) if known else "No wrapper is installed: leave --with out.",
    )


def _overrides(card: Card, given: str) -> Mapping[str, str]:
    main = card.extra.get("value")
    first, *others = _NEXT.split(given)
    if "=" not in first and (main is None or not first):
        raise ExpungeError(
            "E-USE-003",
            f"--with {card.id}:{given}.",
            f"{card.id}:value, or {card.id}:name=value,name=value." if main
            else f"{card.id}, or {card.id}:name=value,name=value.",
            f"Its parameters are {', '.join(card.params) or 'none'}.",
        )  # fmt: skip
    parts = [first if "=" in first else f"{main}={first}", *others]
    split = [part.partition("=") for part in parts]
    return {name.strip(): value.strip() for name, _, value in split}
