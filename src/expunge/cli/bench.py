"""``expunge bench``: run a benchmark, or score logs of one that ran elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from expunge.cli.options import Reference, Seed, names
from expunge.cli.output import Answer, command
from expunge.core.errors import ExpungeError

if TYPE_CHECKING:
    from rich.console import RenderableType

Name = Annotated[
    str, Argument(metavar="NAME[:SPLIT]", help="Benchmark; 'expunge benchmarks' lists them.")
]
Model = Annotated[
    Path | None, Option("--model", metavar="DIR", help="The model that learned everything.")
]
Data = Annotated[
    Path | None, Option("--data", metavar="DIR", help="Folder with the benchmark's own files.")
]
Methods = Annotated[str | None, Option("--methods", metavar="ID,ID", help="Methods to compare.")]
Seeds = Annotated[int, Option("--seeds", metavar="N", min=1, help="Runs of each method.")]
Logs = Annotated[
    Path | None,
    Option("--logs", metavar="FILE", help="Score this log of per-row values instead of a model."),
]
ReferenceLogs = Annotated[
    Path | None,
    Option("--reference-logs", metavar="FILE", help="The same log of the retrained model."),
]
Unmatched = Annotated[
    bool,
    Option(
        "--allow-unmatched",
        help="Compare logs whose rows differ, each by all its rows; the number says so.",
    ),
]
Out = Annotated[Path | None, Option("--out", metavar="DIR", help="Folder to write (with --model).")]


def arguments(
    *,
    name: Name,
    model: Model = None,
    reference: Reference = None,
    data: Data = None,
    methods: Methods = None,
    seeds: Seeds = 3,
    logs: Logs = None,
    reference_logs: ReferenceLogs = None,
    allow_unmatched: Unmatched = False,
    out: Out = None,
    seed: Seed = 0,
) -> dict[str, Any]:
    """The arguments of `expunge.lab.bench.run_bench`, from the options."""
    given = dict(locals())
    benchmark, _, split = given.pop("name").partition(":")
    return {"benchmark": benchmark, "split": split or None, **given, "methods": names(methods)}


def _bench(given: dict[str, Any]) -> Answer:
    """Run methods on a benchmark over several seeds, or score logs."""
    one_source(given)
    from expunge.lab.bench import run_bench

    result = run_bench(**given)
    return Answer(value=result, show=lambda: _told(result))


def _told(result: dict[str, Any]) -> "RenderableType":
    from expunge.cli.facts import facts

    if "lines" not in result:
        return facts(result)
    from expunge.lab.bench_table import remarks, table

    said = [table(result["lines"], "cells"), *remarks(result["lines"]), result["table"]]
    return "\n\n".join(said)


def one_source(given: dict[str, Any]) -> None:
    """Refuse a model and a log at the same time.

    Raises:
        ExpungeError: E-USE-006.
    """
    if given["model"] is not None and given["logs"] is not None:
        raise ExpungeError(
            "E-USE-006",
            "Both --model and --logs.",
            "one of them.",
            "Give --model to run the benchmark, or --logs to score a log.",
        )


bench = command(_bench, options=arguments)
