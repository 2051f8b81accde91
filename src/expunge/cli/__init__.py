"""The command line: one file per command, and the only room that prints.

Nothing here imports torch before a command needs it.
"""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows ``expunge``; the process's own arguments by default.

    Returns:
        The exit code (`expunge.core.errors.Exit`).
    """
    from expunge.cli.app import run

    return run(sys.argv[1:] if arguments is None else arguments)
