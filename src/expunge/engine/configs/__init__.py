"""Shipped settings for ``accelerate launch``: one YAML file for each way to scale out."""

from pathlib import Path

from expunge.core.errors import ExpungeError, nearest


def names() -> list[str]:
    """Names of the shipped settings."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.yaml"))


def path(name: str) -> Path:
    """The file to give to ``accelerate launch --config_file``.

    Raises:
        ExpungeError: ``E-USE-003`` for a name that is not shipped.
    """
    if name not in names():
        raise ExpungeError(
            "E-USE-003",
            f"There are no launch settings called {name!r}.",
            f"one of {', '.join(names())}.",
            nearest(name, names()),
        )
    return Path(__file__).with_name(f"{name}.yaml")
