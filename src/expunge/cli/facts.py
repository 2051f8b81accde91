"""Results in plain words: small tables that several commands print."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType


def facts(value: Mapping[str, Any]) -> "RenderableType":
    """A table of names and values; nested names are joined by a full stop."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, one in _flat(value):
        table.add_row(Text(name.replace("_", " ")), Text(plain(one)))
    return table


def columns(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> "RenderableType":
    """A table with heads; the last column takes what room is left."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads[:-1]:
        table.add_column(head, no_wrap=True)
    table.add_column(heads[-1])
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    return table


def plain(value: object) -> str:
    """One value as people read it: four digits, yes and no, a dash for nothing."""
    match value:
        case None | [] | ():
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case [float() as low, float() as high]:
            return f"{plain(low)} to {plain(high)}"
        case list() | tuple():
            return ", ".join(map(plain, value))
        case _:
            return str(value)


def duration(seconds: float) -> str:
    """A time span in words.

    Example:
        >>> duration(42.0), duration(600), duration(9000)
        ('42 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def size(count: float) -> str:
    """A number of bytes in decimal units.

    Example:
        >>> size(999), size(1_500_000), size(3e9)
        ('999 B', '1.5 MB', '3 GB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, one in value.items():
        if isinstance(one, Mapping):
            yield from _flat(one, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", one
