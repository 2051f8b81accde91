"""``expunge forget``: change a model's weights so that rows are forgotten."""

from collections.abc import Iterator
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
from expunge.core.errors import ExpungeError, raise_all

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


Stream = Annotated[
    Path | None,
    Option(
        "--stream",
        metavar="FILE",
        help="Requests in order (JSON lines), one change each, in place of --forget.",
    ),
]
Anchor = Annotated[
    str,
    Option(
        "--anchor",
        metavar="previous|original",
        help="With --stream: what losses compare with, the model before this request or before "
        "all of them.",
    ),
]


def arguments(
    *,
    model: Model,
    forget: ForgetRows,
    out: Out,
    stream: Stream = None,
    anchor: Anchor = "previous",
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
    """The arguments of `expunge.engine.run.forget`, or of a stream, from the options."""
    given = dict(locals())
    params = settings(given.pop("set"))
    given |= {"params": params, "wrappers": tuple(wrappers or ())}
    raise_all(list(_wrong_source(forget, stream, anchor)))
    for name in ("stream", "anchor") if stream is None else ("forget",):
        del given[name]
    return given


def _wrong_source(forget: Path | None, stream: Path | None, anchor: str) -> Iterator[ExpungeError]:
    if forget is None and stream is None:
        yield ExpungeError(
            "E-USE-007", "no rows to forget.", "--forget FILE, or --stream FILE.", "Give one."
        )
    if forget is not None and stream is not None:
        yield ExpungeError(
            "E-USE-006", "--forget and --stream.", "one of them.", "Leave one of them out."
        )
    if stream is None and anchor != "previous":
        yield ExpungeError(
            "E-USE-006", f"--anchor {anchor} without --stream.", "a stream.", "Leave --anchor out."
        )


def _forget(given: dict[str, Any]) -> Answer:
    """Change a model's weights so that it forgets rows; resumes when given again."""
    if "stream" in given:
        return _stream(given)
    from expunge.engine.run import forget as run

    done = run(**given)
    return Answer(value=done, show=lambda: _told(done, given["forget"]))


def _stream(given: dict[str, Any]) -> Answer:
    from expunge.engine.stream import forget_stream
    from expunge.report import write_stream

    done = forget_stream(**given)
    report = write_stream(done, Path(given["out"]) / "report.html")
    return Answer(value={**done, "report": str(report)}, show=lambda: _told_stream(done, report))


def _told_stream(done: dict[str, Any], report: Path) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table

    table = Table("request", "rows", "steps", "forgotten now", "earlier ones", "kept", box=None)
    for place, one in enumerate(done["requests"]):
        after = one["after"]
        earlier = [known["accuracy"] for known in after["requests"][:place]]
        table.add_row(
            one["id"],
            str(one["rows"]),
            str(one["summary"].get("steps", "nothing to do")),
            f"{after['requests'][place]['accuracy']:.0%}",
            f"{sum(earlier) / len(earlier):.0%}" if earlier else "",
            " ".join(f"{role} {of['accuracy']:.0%}" for role, of in after["kept"].items()),
        )
    said = "Shares of tokens that are the model's first choice, after each request."
    following = f"Next: expunge audit --model {done['model']} --forget ROWS --out AUDIT"
    return Group(table, "", said, f"Report: {report}", following)


def _told(done: dict[str, Any], rows: Path) -> "RenderableType":
    from rich.console import Group

    from expunge.cli.facts import facts

    following = f"Next: expunge audit --model {done['out']} --forget {rows} --out AUDIT"
    return Group(facts(done), "", following)


forget = command(_forget, options=arguments, optional=("forget",))
