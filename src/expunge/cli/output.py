"""The one place that prints: results, errors, and what turns a function into a command."""

import errno
import functools
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, TextIO

from expunge.cli.options import Json, Quiet, Seed
from expunge.cli.progress import shown
from expunge.core.errors import Exit, ExpungeError, Problems
from expunge.core.processes import place

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPE_WIDTH = 120
COMMON = {
    name: inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
    for name, default, annotation in (
        ("json", False, Json),
        ("seed", 0, Seed),
        ("quiet", False, Quiet),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a command found.

    Attributes:
        value: The one JSON value of ``--json``.
        show: Makes what people read; called only when people read it.
        exit: The exit code.
    """

    value: object
    show: "Callable[[], RenderableType]"
    exit: Exit = Exit.DONE


def command(
    work: Callable[..., Answer],
    *,
    options: Callable[..., Any] | None = None,
    optional: Collection[str] = (),
) -> Callable[..., int]:
    """Make a command of a function: common options, progress, result, errors.

    Args:
        work: Does the work. Takes the options, or the one value `options` makes of them. Options
            that it does not declare (``--seed`` for instance) are not passed.
        options: Declares the options and gathers them, where two commands share them.
        optional: Names of required options whose absence `work` itself reports, with all else.

    Returns:
        A function for Typer that returns the exit code.

    Raises:
        ExpungeError: By the returned function, whatever went wrong.
    """
    declared = inspect.signature(options or work)
    parameters = [
        parameter.replace(default=None) if parameter.name in optional else parameter
        for parameter in declared.parameters.values()
    ]
    common = [parameter for name, parameter in COMMON.items() if name not in declared.parameters]

    @functools.wraps(work)
    def run(**given: Any) -> int:
        as_json, quiet = given.pop("json"), given.pop("quiet") or not place().first
        own = {name: given[name] for name in declared.parameters}
        show = _json_of if as_json else _page_of(sys.stdout)

        def answer() -> tuple[str, Exit]:
            found = work(options(**own)) if options else work(**own)
            return show(found), found.exit

        text, code = _guarded(answer, quiet)
        _write(text)
        return int(code)

    shape = declared.replace(parameters=[*parameters, *common], return_annotation=int)
    run.__dict__["__signature__"] = shape
    run.__annotations__ = {p.name: p.annotation for p in shape.parameters.values()}
    return run


def fail(error: ExpungeError, as_json: bool) -> int:
    """Print an error and give its exit code.

    Args:
        error: What went wrong.
        as_json: Print it as the command's one JSON value, else as text on standard error.

    Returns:
        The exit code of the error's class.
    """
    here = place()
    if not here.first:
        print(f"Process {here.rank} of {here.size}:\n{_paragraph(error)}", file=sys.stderr)
        return int(error.exit_code)
    if as_json:
        _write(_json(error.as_json()))
        return int(error.exit_code)
    problems = error.problems if isinstance(error, Problems) else (error,)
    if len(problems) > 1:
        print(f"{len(problems)} problems found.\n", file=sys.stderr)
    print("\n\n".join(_paragraph(problem) for problem in problems), file=sys.stderr)
    return int(error.exit_code)


def explain(error: BaseException) -> ExpungeError:
    """The project's error for anything that can end a command.

    Args:
        error: What was raised.

    Returns:
        The error itself when it is ours; else E-RUN-004 (interrupted), E-REQ-002 (disk full),
        E-REQ-003 (out of memory), E-PATH-002 (not permitted) or E-INT-001.
    """
    if isinstance(error, ExpungeError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return ExpungeError(
            "E-RUN-004",
            "The run was interrupted.",
            "a run that reaches its end.",
            "Give the same command again; the same command resumes.",
        )
    if _is_memory(error):
        return ExpungeError(
            "E-REQ-003",
            "The memory ran out.",
            "enough memory for this model and batch.",
            "Use a smaller --set batch_size, --adapter lora, or a machine with more memory; "
            "the same command resumes.",
        )
    if _is_disk(error):
        return ExpungeError(
            "E-REQ-002",
            "The disk is full.",
            "room for what the run writes.",
            "Free some space, or choose another --out; the same command resumes.",
        )
    if isinstance(error, PermissionError):
        return ExpungeError(
            "E-PATH-002",
            f"No permission for {error.filename or 'a file'}.",
            "a file or folder this user may use.",
            "Change its permissions, or choose another path.",
        )
    return ExpungeError(
        "E-INT-001",
        f"{type(error).__name__}: {error}".rstrip(": ") + ".",
        "no such error; this is a defect of expunge.",
        "Run it again with EXPUNGE_TRACEBACK=1 in the environment and report what that prints.",
    )


def _guarded(answer: Callable[[], tuple[str, Exit]], quiet: bool) -> tuple[str, Exit]:
    """Run the work; everything it or a library prints goes to standard error."""
    try:
        with redirect_stdout(sys.stderr), shown(quiet=quiet):
            return answer()
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("EXPUNGE_TRACEBACK") == "1":
            traceback.print_exc(file=sys.stderr)
        raise explain(error) from error


def _is_memory(error: BaseException) -> bool:
    # torch has two ways to say it, and neither is a MemoryError
    is_torch = isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    )
    is_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or is_torch or is_system


def _is_disk(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left on device" in str(error)  # safetensors raises a class of its own


def _json_of(answer: Answer) -> str:
    return _json(answer.value)


def _page_of(stream: TextIO) -> Callable[[Answer], str]:
    """What people read, made for the stream's width and colours."""
    is_terminal = stream.isatty()

    def page_of(answer: Answer) -> str:
        from rich.console import Console

        page = Console(
            file=StringIO(),
            force_terminal=is_terminal,
            width=get_terminal_size().columns if is_terminal else PIPE_WIDTH,
            highlight=False,
            markup=False,
        )
        with page.capture() as captured:
            told = answer.show()
            page.print(told, soft_wrap=isinstance(told, str))  # a text keeps its own lines
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    return page_of


def _write(text: str) -> None:
    if not place().first:
        return  # of several processes that do one thing, one speaks
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # the reader has seen enough (``| head``); spare it Python's own complaint at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False, default=str)


def _paragraph(error: ExpungeError) -> str:
    return f"Error {error.code}: {error.found}\n  Expected: {error.expected}\n  Next: {error.next}"
