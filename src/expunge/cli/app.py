"""The tree of commands and the way into it."""

import os
import signal
import threading
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from expunge.cli import (
    attacks,
    audit,
    bench,
    benchmarks,
    check,
    compare,
    demo,
    forget,
    guard,
    guards,
    methods,
    metrics,
    new,
    output,
    revert,
    serve,
    sign,
    testbed,
    usage,
    verify,
)
from expunge.core.errors import ExpungeError

app = typer.Typer(name="expunge", add_completion=False, pretty_exceptions_enable=False)
_START, _LOOK, _EXTEND = "Forget and prove", "Look up", "Test and extend"
for _panel, _commands in (
    (
        _START,
        (
            demo.demo,
            forget.forget,
            guard.guard,
            serve.serve,
            audit.audit,
            sign.sign,
            verify.verify,
            revert.revert,
        ),
    ),
    (
        _LOOK,
        (
            methods.methods,
            guards.guards,
            metrics.metrics,
            attacks.attacks,
            benchmarks.benchmarks,
        ),
    ),
    (_EXTEND, (bench.bench, compare.compare)),
):
    for _command in _commands:
        app.command(_command.__name__.lstrip("_"), rich_help_panel=_panel)(_command)
app.add_typer(check.app, name="check", rich_help_panel=_START)
app.add_typer(testbed.app, name="testbed", rich_help_panel=_EXTEND)
app.add_typer(new.app, name="new", rich_help_panel=_EXTEND)

QUIET_LIBRARIES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("expunge"))
        raise typer.Exit


@app.callback()
def expunge(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Make a language model forget on request, and show whether it did.

    Begin with [bold]expunge demo[/bold], which downloads nothing. Then [bold]expunge forget[/bold]
    and [bold]expunge audit[/bold] take a model of yours.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name.

    Args:
        arguments: What follows ``expunge``.

    Returns:
        The exit code.
    """
    for name, value in QUIET_LIBRARIES.items():
        os.environ.setdefault(name, value)
    if threading.current_thread() is threading.main_thread():
        # a stopped container ends like Ctrl-C: in words, with a checkpoint to go on from
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    wants_json = "--json" in arguments
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            code = get_command(app)(
                args=list(arguments) or ["--help"], prog_name="expunge", standalone_mode=False
            )
        except ExpungeError as error:
            return output.fail(error, wants_json)
        except typer.TyperException as error:
            return output.fail(usage.explain(error), wants_json)
    return int(code or 0)
