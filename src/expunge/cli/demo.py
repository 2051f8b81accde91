"""``expunge demo``: the whole story on the embedded testbed, offline."""

from pathlib import Path
from typing import Annotated

from typer import Option

from expunge.cli.options import Seed
from expunge.cli.output import Answer, command


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
    return Answer(value=value, show=lambda: story["table"])
