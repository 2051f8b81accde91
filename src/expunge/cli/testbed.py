"""``expunge testbed``: write the embedded world and its models to a folder."""

from pathlib import Path
from typing import Annotated

from typer import Option, Typer

from expunge.cli.options import Out, Seed
from expunge.cli.output import Answer, command

app = Typer(help="Write test worlds and their models: original and retrained reference.")


@command
def build(out: Out, seed: Seed = 0) -> Answer:
    """Train the embedded world's models and write them with their rows."""
    from expunge.cli.facts import facts
    from expunge.lab.testbed import build as run

    built = run(out, seed)
    return Answer(value=built, show=lambda: facts(built))


@command
def tofu(
    data: Annotated[Path, Option("--data", metavar="DIR", help="Folder with the TOFU data files.")],
    out: Out,
    seed: Seed = 0,
) -> Answer:
    """Train small models on the TOFU authors, for benchmarks on one machine."""
    from expunge.cli.facts import facts
    from expunge.lab.tofu_tiny import build_tofu

    built = build_tofu(data, out, seed)
    return Answer(value=built, show=lambda: facts(built))


app.command("build")(build)
app.command("tofu")(tofu)
