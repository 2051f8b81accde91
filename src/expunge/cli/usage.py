"""Mistakes in the command line itself, in the words of the project's errors."""

from typer import TyperException
from typer._click.exceptions import (  # the public package exports only the base class
    BadOptionUsage,
    BadParameter,
    MissingParameter,
    NoSuchOption,
    UsageError,
)

from expunge.core.errors import ExpungeError, nearest

_KINDS: tuple[tuple[type[TyperException], str, str], ...] = (
    (NoSuchOption, "E-USE-002", "an option of this command."),
    (MissingParameter, "E-USE-007", "all required options."),
    (BadOptionUsage, "E-USE-007", "a value after the option."),
    (BadParameter, "E-USE-003", "a value the option accepts."),
)


def explain(error: TyperException) -> ExpungeError:
    """The project's error for what the parser complained about.

    Args:
        error: The parser's exception.

    Returns:
        E-USE-002 (unknown option, command or argument), E-USE-003 (bad value) or E-USE-007
        (something missing), with the nearest names and the command whose help to read.
    """
    code, expected, hint = _classify(error)
    advice = f"{hint} Run '{_command(error)} --help' to see all.".strip()
    return ExpungeError(code, _sentence(error.format_message()), expected, advice)


def _classify(error: TyperException) -> tuple[str, str, str]:
    for kind, code, expected in _KINDS:
        if isinstance(error, kind):
            return code, expected, _nearest_option(error)
    commands = _commands(error)
    if error.message.startswith("Missing command"):
        return "E-USE-007", f"one of: {', '.join(commands)}.", ""
    if error.message.startswith("No such command"):
        return "E-USE-002", "a command.", nearest(_quoted(error.message), commands)
    return "E-USE-002", "the arguments of this command.", ""


def _nearest_option(error: TyperException) -> str:
    if not isinstance(error, NoSuchOption) or error.ctx is None:
        return ""
    options = [name for param in error.ctx.command.params for name in param.opts]
    return nearest(error.option_name, (name for name in options if name.startswith("--")))


def _commands(error: TyperException) -> list[str]:
    if not isinstance(error, UsageError) or error.ctx is None:
        return []
    from typer.core import TyperGroup

    group = error.ctx.command
    return sorted(group.commands) if isinstance(group, TyperGroup) else []


def _command(error: TyperException) -> str:
    if isinstance(error, UsageError) and error.ctx is not None:
        return error.ctx.command_path
    return "expunge"


def _quoted(message: str) -> str:
    parts = message.split("'")
    return parts[1] if len(parts) > 1 else message


def _sentence(message: str) -> str:
    for addition in (" Did you mean", " (Possible options"):
        message = message.partition(addition)[0]
    message = message.replace("Value error, ", "").strip()
    return message if message.endswith(".") else f"{message}."
