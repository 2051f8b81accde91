"""Doors of other servers, with the same guards behind them: thin, without rules of their own."""

from importlib import import_module
from types import ModuleType

from expunge.core.errors import ExpungeError


def module_of(package: str, name: str) -> ModuleType:
    """A module of a server that is installed beside this project, never by it.

    Raises:
        ExpungeError: ``E-REQ-001`` when it is not there.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ExpungeError(
            "E-REQ-001",
            f"{name} cannot be imported.",
            f"{package}, in a version that has it.",
            f"Install it with: pip install {package}",
        ) from error
