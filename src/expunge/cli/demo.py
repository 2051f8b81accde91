"""``expunge demo``: the whole story on the embedded testbed, offline."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from expunge.cli.facts import columns
from expunge.cli.options import Seed
from expunge.cli.output import Answer, command

if TYPE_CHECKING:
    from rich.console import RenderableType


@command
def demo(
    out: Annotated[Path, Option("--out", metavar="DIR", help="Folder to write.")] = Path("demo"),
    seed: Seed = 0,
) -> Answer:
    """Forget eight invented people, attack the result, write a report; nothing is downloaded."""
    from expunge.lab.demo import run_demo

    story = run_demo(out, seed)
    told = ("answers", "table")
    value = {name: part for name, part in story.items() if name not in told}
    return Answer(value=value, show=lambda: _page(story))


def _page(story: Mapping[str, Any]) -> "RenderableType":
    """What every model answers, what the audits say, and where to read on."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for rows in (story["answers"], story["table"]):
        if rows:
            parts += [columns(list(rows[0]), (row.values() for row in rows)), Text()]
    return Group(*parts, Text(f"The report: {story['report']}"))
