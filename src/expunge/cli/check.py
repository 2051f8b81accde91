"""``expunge check``: find every mistake before any weights load."""

from typing import TYPE_CHECKING, Any

from typer import Typer

from expunge.cli import audit, bench, forget
from expunge.cli.output import Answer, command
from expunge.core.errors import raise_all

if TYPE_CHECKING:
    from rich.console import RenderableType

    from expunge.engine.check import Report

app = Typer(help="Validate everything, and estimate time, memory and disk, before weights load.")


def _check_forget(given: dict[str, Any]) -> Answer:
    """Check what 'expunge forget' would do; takes the same options."""
    if "stream" in given:
        from expunge.engine.requested import read_stream

        return _answer(read_stream(**given)[1])
    from expunge.engine.check import check_forget

    return _answer(check_forget(**given))


def _check_audit(given: dict[str, Any]) -> Answer:
    """Check what 'expunge audit' would do; takes the same options."""
    from expunge.audit.check import check_audit

    return _answer(check_audit(**given))


def _check_bench(given: dict[str, Any]) -> Answer:
    """Check what 'expunge bench' would do; takes the same options."""
    bench.one_source(given)
    if given["benchmark"] == bench.HARNESS:
        from expunge.lab.harness import check_harness

        options = bench.harness_options(given)
        return _answer(check_harness(**{**options, "out": options["out"] or "bench"}))
    from expunge.lab.bench import check_bench

    return _answer(check_bench(**given))


def _answer(report: "Report") -> Answer:
    raise_all(report.problems)
    value = {"problems": [], "estimate": report.estimate, "resolved": report.resolved}
    return Answer(value=value, show=lambda: _told(report))


def _told(report: "Report") -> "RenderableType":
    from rich.console import Group

    from expunge.cli.facts import duration, facts, size

    estimate = dict(report.estimate)
    needed = {
        "time, at most": duration(estimate["seconds"]),
        "memory": size(estimate["memory_bytes"]),
        "disk": size(estimate["disk_bytes"]),
    }
    return Group("Nothing stands in the way.", "", facts(needed), "", facts(report.resolved))


app.command("forget")(command(_check_forget, options=forget.arguments, optional=("out", "forget")))
app.command("audit")(command(_check_audit, options=audit.arguments, optional=("out",)))
app.command("bench")(command(_check_bench, options=bench.arguments, optional=("out",)))
