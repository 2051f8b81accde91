"""``expunge guard``: stop content at once, in front of the model."""

from typing import Annotated

from typer import Option

from expunge.cli.options import (
    Chats,
    DeciderPlace,
    ForgetRows,
    Model,
    Out,
    RetainRows,
    Seed,
    Settings,
    settings,
)
from expunge.cli.output import Answer, command

Guard = Annotated[
    str, Option("--guard", metavar="ID", help="Id of the guard; 'expunge guards' lists them.")
]


@command
def guard(
    *,
    model: Model,
    forget: ForgetRows,
    out: Out,
    retain: RetainRows = None,
    guard: Guard = "lexical",
    chat: Chats = None,
    decider: DeciderPlace = None,
    set: Settings = None,
    seed: Seed = 0,
) -> Answer:
    """Write a change folder whose only part is a guard; it can be audited like any other."""
    from expunge.api import guard_paths
    from expunge.cli.facts import facts

    done = guard_paths(
        model,
        forget,
        guard,
        settings(set),
        out,
        retain=retain,
        chats=chat or (),
        decider=decider,
        seed=seed,
    )
    return Answer(value=done, show=lambda: facts(done))
