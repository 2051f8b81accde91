"""``expunge audit``: attack a model and say what it still knows."""

from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from expunge.cli.options import (
    ForgetRows,
    HoldoutRows,
    Model,
    NeighbourRows,
    Original,
    Out,
    Reference,
    RetainRows,
    Seed,
    names,
)
from expunge.cli.output import Answer, command
from expunge.core.errors import Exit
from expunge.core.results import Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

    from expunge.audit.record import Audit

Profile = Annotated[
    str,
    Option("--profile", metavar="fast|default|privacy|extended", help="How much is tried."),
]
Only = Annotated[str | None, Option("--only", metavar="ID,ID", help="Only these attacks.")]
Skip = Annotated[str | None, Option("--skip", metavar="ID,ID", help="All but these attacks.")]
Require = Annotated[
    Verdict | None,
    Option(
        "--require",
        metavar="CLASS",
        help="Exit with 1 below this class, or below --min-utility.",
    ),
]
MinUtility = Annotated[
    float | None,
    Option(
        "--min-utility",
        metavar="X",
        min=0.0,
        max=1.0,
        help="Lower bound of utility a release needs [0.95 with --require].",
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
    original: Original = None,
    reference: Reference = None,
    profile: Profile = "default",
    only: Only = None,
    skip: Skip = None,
    require: Require = None,
    min_utility: MinUtility = None,
    seed: Seed = 0,
) -> dict[str, Any]:
    """The arguments of `expunge.api.audit_paths`, from the options."""
    return dict(locals()) | {"only": names(only), "skip": names(skip)}


def _audit(given: dict[str, Any]) -> Answer:
    """Attack a model, compare with controls, and state a verdict with its report."""
    from expunge.api import audit_paths

    audit = audit_paths(**given)
    return Answer(
        value=audit.summary(),
        show=lambda: _told(audit),
        exit=Exit.DONE if audit.released else Exit.BELOW_REQUIRED,
    )


def _told(audit: "Audit") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from expunge.cli.facts import columns, plain

    summary, release = audit.summary(), audit.data["release"] or {"why": ()}
    score, interval = plain(summary["erasure_score"]), plain(summary["interval"])
    attacks = (
        (id, one["outcome"], one["recovery"], one["interval"], one["gate"])
        for id, one in summary["attacks"].items()
    )
    return Group(
        Text.assemble("Verdict: ", (str(summary["verdict"]), "bold")),
        *(Text(f"  {reason}") for reason in summary["reasons"]),
        "",
        columns(("attack", "outcome", "recovery", "interval", "gate"), attacks),
        "",
        Text(f"erasure score: {score} ({interval})"),
        Text(f"utility: {plain(summary['utility'])}"),
        Text(f"report: {summary['report']}"),
        *(Text(f"Below what was required: {why}.") for why in release["why"]),
    )


audit = command(_audit, options=arguments)
