"""``expunge bench``: run a benchmark, or score logs of one that ran elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from expunge.cli.options import Reference, Seed, Settings, names, settings
from expunge.cli.output import Answer, command
from expunge.core.errors import ExpungeError

if TYPE_CHECKING:
    from rich.console import RenderableType

HARNESS = "lm-eval"
"""The benchmark name behind which the tasks of lm-evaluation-harness stand."""

Name = Annotated[
    str,
    Argument(
        metavar="NAME[:SPLIT]",
        help="Benchmark; 'expunge benchmarks' lists them. lm-eval:TASK,TASK runs the harness.",
    ),
]
Model = Annotated[
    Path | None, Option("--model", metavar="DIR", help="The model that learned everything.")
]
Base = Annotated[
    Path | None,
    Option("--base", metavar="DIR", help="The model before it learned any of the rows."),
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
    base: Base = None,
    data: Data = None,
    methods: Methods = None,
    seeds: Seeds = 3,
    logs: Logs = None,
    reference_logs: ReferenceLogs = None,
    allow_unmatched: Unmatched = False,
    out: Out = None,
    set: Settings = None,
    seed: Seed = 0,
) -> dict[str, Any]:
    """The arguments of `expunge.lab.bench.run_bench`, from the options."""
    given = dict(locals())
    benchmark, _, split = given.pop("name").partition(":")
    given |= {"methods": names(methods), "params": settings(given.pop("set"))}
    return {"benchmark": benchmark, "split": split or None, **given}


def _bench(given: dict[str, Any]) -> Answer:
    """Run methods on a benchmark over several seeds, or score logs."""
    one_source(given)
    if given["benchmark"] == HARNESS:
        return _harness(given)
    from expunge.lab.bench import run_bench

    result = run_bench(**given)
    return Answer(value=result, show=lambda: _told(result))


def harness_options(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `expunge.lab.harness.run_harness`, from those of a bench.

    Raises:
        ExpungeError: E-USE-006 for options that say nothing to the harness.
    """
    taken = ("model", "data", "out", "params", "seed")
    unused = ("reference", "base", "methods", "logs", "reference_logs")
    if strange := [name for name in unused if given.get(name)]:
        raise ExpungeError(
            "E-USE-006",
            f"--{strange[0].replace('_', '-')} with {HARNESS}.",
            "--model, --data, --out and --set alone.",
            "Run the harness on each change folder.",
        )
    return {"tasks": given["split"], **{name: given[name] for name in taken}}


def _harness(given: dict[str, Any]) -> Answer:
    """Tasks of lm-evaluation-harness on one model or change."""
    from expunge.lab.harness import run_harness

    result = run_harness(**harness_options(given))
    return Answer(value=result, show=lambda: _numbers(result))


def _numbers(result: dict[str, Any]) -> "RenderableType":
    from expunge.cli.facts import facts

    return facts(
        {
            f"{task} {metric}": f"{number['value']:.4g} (n {of['n']}, error {number['stderr']})"
            for task, of in result["tasks"].items()
            for metric, number in of["values"].items()
        }
        | {"report": result["report"]}
    )


def _told(result: dict[str, Any]) -> "RenderableType":
    from expunge.cli.facts import facts

    if "lines" not in result:
        return facts(_in_short(result))
    from expunge.lab.bench_table import remarks, table

    said = [table(result["lines"], "cells"), *remarks(result["lines"]), result["table"]]
    return "\n\n".join(said)


def _in_short(summary: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a summary without their rows: its own shape where it has one."""
    shaped = {name: part for name, part in summary.items() if name not in ("values", "notes")}
    means = {name: value["mean"] for name, value in summary.get("values", {}).items()}
    notes = {"notes": summary["notes"]} if summary.get("notes") else {}
    return {**(shaped or means), **notes}


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
