"""What ``methods``, ``metrics``, ``attacks``, ``guards`` and ``benchmarks`` have in common."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from expunge.cli.output import Answer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from expunge.core.card import Card
    from expunge.core.registry import Registry

Id = Annotated[str | None, Argument(metavar="[ID]", help="Show this one in full.")]


def answer(registry: "Registry", id: str | None) -> Answer:
    """All components of one kind, or one of them in full.

    Args:
        registry: Where they are found.
        id: The one to show, or None for the list.

    Returns:
        The cards as JSON (one card when `id` is given), and a table or a page for people.

    Raises:
        ExpungeError: E-USE-001 for an unknown id.
    """
    if id is None:
        cards = registry.cards()
        return Answer(value=[card.as_dict() for card in cards], show=lambda: _table(cards))
    card = registry.card(id)
    return Answer(value={**card.as_dict(), "doc": card.doc}, show=lambda: _page(card))


def _table(cards: Sequence["Card"]) -> "RenderableType":
    from rich.table import Table

    if not cards:
        return "None yet."
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "kind", "maturity"):
        table.add_column(column, no_wrap=True)
    table.add_column("summary")
    for card in cards:
        table.add_row(card.id, card.kind, card.maturity, card.summary)
    return table


def _page(card: "Card") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text.assemble((card.id, "bold"), f"  {card.kind}, {card.maturity}, version {card.version}"),
        Text(card.summary),
    ]
    if card.formula:
        parts += [Text(), Text(_indented(card.formula))]
    parts += [Text(), _facts(card)]
    for title in ("Meaning", "Example", "Departs from the paper"):
        if words := section(card.doc, title):
            parts += [Text(), Text(title, "bold"), Text(_indented(words))]
    if card.params:
        parts += [Text(), _parameters(card.params)]
    return Group(*parts)


def _facts(card: "Card") -> "RenderableType":
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    facts = {"paper": card.paper, "needs": card.needs, "access": card.access, "cost": card.cost}
    for name, value in (facts | dict(card.extra)).items():
        table.add_row(name, _plain(value))
    return table


def _parameters(params: Mapping[str, Mapping[str, Any]]) -> "RenderableType":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("parameter (--set name=value)", no_wrap=True)
    table.add_column("default", no_wrap=True)
    table.add_column("paper", max_width=24)
    table.add_column("help")
    for name, facts in params.items():
        table.add_row(name, *(_plain(facts[key]) for key in ("default", "paper", "help")))
    return table


def section(doc: str, title: str) -> str:
    """A named part of a component's documentation.

    Args:
        doc: The documentation.
        title: The words before the colon.

    Returns:
        Its text up to the next part that starts at the margin, unindented; empty when not there.
    """
    from textwrap import dedent

    _, found, rest = doc.partition(f"\n{title}:")
    if not found:
        return ""
    first, *lines = rest.split("\n")
    kept: list[str] = []
    for line in lines:
        if not kept or line.strip() == "" or line.startswith(" ") or kept[-1].strip():
            kept.append(line)
        else:
            break
    return f"{first.strip()}\n{dedent(chr(10).join(kept)).strip()}".strip()


def _plain(value: object) -> "RenderableType":
    from rich.text import Text

    if isinstance(value, list | tuple):
        return Text(", ".join(map(str, value)) or "-")
    return Text("-" if value is None else str(value))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())
