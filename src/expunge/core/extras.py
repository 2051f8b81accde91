"""Packages of extras: there, or an error that says how to install them."""

from importlib import import_module

from expunge.core.errors import ExpungeError


def require(package: str, *, extra: str) -> None:
    """Make sure that an optional package can be imported.

    Args:
        package: Its import name.
        extra: The extra of this project that brings it.

    Raises:
        ExpungeError: ``E-REQ-001`` with the command that installs it.
    """
    try:
        import_module(package)
    except ImportError as error:
        raise ExpungeError(
            "E-REQ-001",
            f"The package {package} is not installed.",
            f"the extra {extra!r}.",
            f"Install it with: pip install 'expunge[{extra}]'",
        ) from error
