"""``expunge revert``: give back the model as it was before a change."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from expunge.cli.output import Answer, command


@command
def revert(
    folder: Annotated[Path, Argument(help="Change folder written by expunge.")],
    out: Annotated[
        Path | None, Option("--out", metavar="DIR", help="Where to write the original.")
    ] = None,
) -> Answer:
    """Undo a change exactly; the result's hash is that of the original."""
    from expunge.cli.facts import facts
    from expunge.engine.change import revert as run

    done = run(folder, out=out)
    return Answer(value=done, show=lambda: facts(done))
