"""How rows to be kept are related to what is to be forgotten: neighbours, near and far.

The *entity* of a forget row is its ``subject``, else its names, else the row itself. A row to be
kept is

    direct      of every entity whose subject or name is its own, or whose name it says
    indirect    of every entity of which a forget row asks for the same attribute; of all entities
                where it came as a neighbour row and nothing else is known of it
    general     otherwise

``meta["neighbour"]`` (``direct``, ``indirect``, ``general``) decides the kind and
``meta["neighbour_of"]`` (a subject or a name, or several) of whom, where they are given. A row that
is direct of one entity is no indirect neighbour of another.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from expunge.core.errors import ExpungeError
from expunge.requests.names import names_of
from expunge.requests.rows import Row
from expunge.requests.scope import attributes, subject_of
from expunge.text.normalise import normalise

Kind = Literal["direct", "indirect", "general"]
KINDS: tuple[Kind, ...] = ("direct", "indirect", "general")


class Related(NamedTuple):
    """What a retain row is to the forget rows.

    Attributes:
        kind: Which kind of neighbour.
        entities: Of which entities; none where it is general.
    """

    kind: Kind
    entities: tuple[str, ...] = ()


def entities_of(forget: Sequence[Row]) -> dict[str, list[int]]:
    """Entity -> indices of its forget rows, both in the order of the rows."""
    names = names_of(forget)
    found: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(forget):
        found[subject_of(row, names[row.id])].append(place)
    return dict(found)


def related(forget: Sequence[Row], retain: Sequence[Row]) -> list[Related]:
    """What each retain row is to the forget rows.

    Raises:
        ExpungeError: ``E-DATA-003`` for a ``meta["neighbour"]`` that is no kind.
    """
    names, kept = names_of(forget), names_of(retain)
    asked = attributes([*forget, *retain])
    own = {e: [forget[place].id for place in at] for e, at in entities_of(forget).items()}
    called: dict[str, set[str]] = {
        entity: set().union(*(names[id] for id in ids)) for entity, ids in own.items()
    }
    spoken = {entity: [normalise(name) for name in them] for entity, them in called.items()}
    asking = {entity: {asked[id] for id in ids} for entity, ids in own.items()}

    def of(row: Row) -> Related:
        linked = _links(row.meta.get("neighbour_of", ()))
        same = linked or {subject_of(row, kept[row.id]), *kept[row.id]}
        said = "" if linked else f" {normalise(_said(row))} "
        direct = [e for e in own if same & {e, *called[e]} or _stands(spoken[e], said)]
        alike = [e for e in own if asked[row.id] in asking[e]]
        near: Kind = "indirect" if alike or row.role == "neighbour" else "general"
        kind = _given(row) or ("direct" if direct else near)
        return Related(kind, () if kind == "general" else tuple(direct or alike or own))

    return [of(row) for row in retain]


def _given(row: Row) -> Kind | None:
    kind: Kind | None = row.meta.get("neighbour")
    if kind is None or kind in KINDS:
        return kind
    raise ExpungeError(
        "E-DATA-003",
        f"Row {row.id!r}: meta.neighbour is {kind!r}.",
        f"one of {', '.join(KINDS)}.",
        "Correct it, or leave it out.",
    )


def _links(given: Any) -> set[str]:
    return {given} if isinstance(given, str) else set(map(str, given))


def _said(row: Row) -> str:
    """All that a row says, in all its wordings."""
    prompts = [turn.prompt for turn in row.turns]
    asked = [p if isinstance(p, str) else "\n".join(m["content"] for m in p) for p in prompts]
    return "\n".join([*asked, row.training.completion, *(turn.completion for turn in row.turns)])


def _stands(names: Iterable[str], said: str) -> bool:
    """Whether one of some normalised names stands in a normalised text, as whole words."""
    return any(name and f" {name} " in said for name in names)
