"""``expunge forget``: change a model's weights so that rows are forgotten."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from expunge.cli.options import (
    ForgetRows,
    HoldoutRows,
    Model,
    NeighbourRows,
    Out,
    Reference,
    RetainRows,
    Seed,
    Settings,
    settings,
)
from expunge.cli.output import Answer, command

if TYPE_CHECKING:
    from rich.console import RenderableType

Method = Annotated[
    str, Option("--method", metavar="ID", help="Id of the method; 'expunge methods' lists them.")
]
Wrappers = Annotated[
    list[str] | None,
    Option("--with", metavar="WRAPPER[:value]", help="A wrapper around it; may be repeated."),
]
Adapter = Annotated[
    str | None, Option("--adapter", metavar="lora", help="Train an adapter, not all weights.")
]
Budget = Annotated[
    float | None,
    Option(
        "--utility-budget",
        metavar="X",
        min=0.0,
        max=1.0,
        help="Largest relative fall of retain accuracy.",
    ),
]
Minutes = Annotated[
    float | None,
    Option("--max-minutes", metavar="X", min=0.0, help="Stop in good order after this long."),
]
StopAt = Annotated[
    str,
    Option(
        "--stop-at",
        metavar="nll=X|reference|placebo|none",
        help="Forget level at which the run ends; placebo = that of rows it never saw.",
    ),
]


def arguments(
    *,
    model: Model,
    forget: ForgetRows,
    out: Out,
    retain: RetainRows = None,
    neighbour: NeighbourRows = None,
    holdout: HoldoutRows = None,
    reference: Reference = None,
    method: Method = "npo",
    wrappers: Wrappers = None,
    set: Settings = None,
    adapter: Adapter = None,
    utility_budget: Budget = None,
    max_minutes: Minutes = None,
    stop_at: StopAt = "placebo",
    seed: Seed = 0,
) -> dict[str, Any]:
    """The arguments of `expunge.engine.run.forget`, from the options."""
    given = dict(locals())
    params = settings(given.pop("set"))
    return {**given, "params": params, "wrappers": tuple(wrappers or ())}


def _forget(given: dict[str, Any]) -> Answer:
    """Change a model's weights so that it forgets rows; resumes when given again."""
    from expunge.engine.run import forget as run

    done = run(**given)
    return Answer(value=done, show=lambda: _told(done, given["forget"]))


def _told(done: dict[str, Any], rows: Path) -> "RenderableType":
    from rich.console import Group

    from expunge.cli.facts import facts

    following = f"Next: expunge audit --model {done['out']} --forget {rows} --out AUDIT"
    return Group(facts(done), "", following)


forget = command(_forget, options=arguments)
