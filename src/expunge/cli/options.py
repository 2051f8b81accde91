"""Options that several commands share, each with its help."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Option

from expunge.core.errors import ExpungeError, raise_all

Model = Annotated[
    Path,
    Option(
        "--model", metavar="DIR", help="Model folder, hub id, or change folder written by expunge."
    ),
]
ForgetRows = Annotated[
    Path, Option("--forget", metavar="FILE", help="Rows to forget (JSON lines).")
]
RetainRows = Annotated[
    Path | None, Option("--retain", metavar="FILE", help="Rows that must be kept.")
]
NeighbourRows = Annotated[
    Path | None,
    Option(
        "--neighbour", metavar="FILE", help="Rows close to the forgotten ones that must be kept."
    ),
]
HoldoutRows = Annotated[
    Path | None,
    Option("--holdout", metavar="FILE", help="Rows of the same sort, never trained on."),
]
Original = Annotated[
    Path | None,
    Option("--original", metavar="DIR", help="The model before (known for a change folder)."),
]
Reference = Annotated[
    Path | None,
    Option("--reference", metavar="DIR", help="A model trained without the forget rows."),
]
Out = Annotated[Path, Option("--out", metavar="DIR", help="Folder to write.")]
Settings = Annotated[
    list[str] | None,
    Option("--set", metavar="NAME=VALUE", help="A parameter of it; may be repeated."),
]
Chats = Annotated[
    list[str] | None,
    Option(
        "--chat",
        metavar="[ROLE=]URL[#MODEL]|DIR",
        help="Language model that plays a role of a guard, or all roles; may be repeated. "
        "By default the guarded model plays them.",
    ),
]
DeciderPlace = Annotated[
    str | None,
    Option(
        "--decider",
        metavar="URL/systemone|URL/decisions|DIR",
        help="Who answers typed questions of a guard: a server, or a chat model of this machine.",
    ),
]
Json = Annotated[bool, Option("--json", help="Print one JSON value on standard output.")]
Seed = Annotated[
    int, Option("--seed", metavar="N", min=0, help="Seed from which all randomness is derived.")
]
Quiet = Annotated[bool, Option("--quiet", help="No progress.")]


def settings(pairs: Sequence[str] | None) -> dict[str, str]:
    """The values of ``--set``.

    Args:
        pairs: As typed, ``name=value`` each.

    Returns:
        Name -> value, still text (`expunge.core.params.resolve` knows the types).

    Raises:
        ExpungeError: E-USE-003 for a pair without ``=``, E-USE-006 for a name given twice.
    """
    found: dict[str, str] = {}
    problems: list[ExpungeError] = []
    for pair in pairs or ():
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not name or not equals:
            problems.append(_no_pair(pair))
        elif name in found:
            problems.append(_twice(name, found[name], value))
        else:
            found[name] = value
    raise_all(problems)
    return found


def names(text: str | None) -> tuple[str, ...]:
    """The parts of a list typed with commas.

    Example:
        >>> names("npo, ga")
        ('npo', 'ga')
    """
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _no_pair(pair: str) -> ExpungeError:
    return ExpungeError(
        "E-USE-003", f"--set {pair!r}.", "name=value.", "Write, for instance, --set beta=0.1."
    )


def _twice(name: str, first: str, second: str) -> ExpungeError:
    return ExpungeError(
        "E-USE-006",
        f"--set gives {name!r} twice: {first!r} and {second!r}.",
        "one value for each parameter.",
        "Leave one of them out.",
    )
