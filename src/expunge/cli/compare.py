"""``expunge compare``: runs side by side."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from expunge.cli.options import Seed, names
from expunge.cli.output import Answer, command

if TYPE_CHECKING:
    from rich.console import RenderableType


class Format(StrEnum):
    """How a comparison is printed."""

    CONSOLE = "console"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


Runs = Annotated[
    list[Path],
    Argument(metavar="RUN...", help="Folders that expunge bench, audit or forget wrote."),
]
Against = Annotated[
    str | None,
    Option("--against", metavar="NAME", help="Run, or method, to compare the others with."),
]
Metrics = Annotated[
    str | None, Option("--metrics", metavar="NAME,NAME", help="Only these numbers.")
]
Forgetting = Annotated[
    str | None,
    Option("--forgetting", metavar="NAME", help="Number of a benchmark to put as forgetting."),
]
Utility = Annotated[
    str | None,
    Option("--utility", metavar="NAME", help="Number of a benchmark to put as utility."),
]
Forget = Annotated[
    Path | None,
    Option("--forget", metavar="FILE", help="Rows of the audits: which are about one subject."),
]
Unmatched = Annotated[
    bool,
    Option("--allow-unmatched", help="Compare runs on different rows; the numbers say so."),
]
Out = Annotated[Path | None, Option("--out", metavar="DIR", help="Folder for the page and tables.")]
As = Annotated[Format, Option("--format", help="How to print it.")]


def arguments(
    *,
    runs: Runs,
    against: Against = None,
    metrics: Metrics = None,
    forgetting: Forgetting = None,
    utility: Utility = None,
    forget: Forget = None,
    allow_unmatched: Unmatched = False,
    out: Out = None,
    format: As = Format.CONSOLE,
    seed: Seed = 0,
) -> dict[str, Any]:
    """The arguments of `expunge.lab.compare.compare`, and how to print what it finds."""
    return dict(locals()) | {"metrics": names(metrics)}


def _compare(given: dict[str, Any]) -> Answer:
    """Put runs side by side, with paired differences and their intervals."""
    from expunge.lab.compare import compare as put

    form = given.pop("format")
    result = put(**given)
    return Answer(value=result, show=lambda: _told(result, form))


def _told(result: dict[str, Any], form: Format) -> "RenderableType":
    import json

    from expunge.lab.compare.table import csv, markdown

    match form:
        case Format.MARKDOWN:
            return markdown(result).rstrip("\n")
        case Format.CSV:
            return csv(result).rstrip("\n")
        case Format.JSON:
            return json.dumps(result, ensure_ascii=False, indent=2, allow_nan=False)
        case Format.CONSOLE:
            return _tables(result)


def _tables(result: dict[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from expunge.cli.facts import columns
    from expunge.lab.compare.table import believed, counted, tables

    parts: list[RenderableType] = []
    for group in result["groups"]:
        parts += [Text(group["title"], "bold"), Text(counted(group)), ""]
        for table in tables(group):
            parts += [Text(table.title, "bold"), columns(table.heads, table.rows), ""]
        parts += [Text(said) for said in (believed(group), *group["notes"]) if said]
        parts.append("")
    parts.append(Text(f"report: {result['report'] or 'none; --out DIR writes one'}"))
    return Group(*parts)


compare = command(_compare, options=arguments)
