"""``python -m expunge.cli.configs NAME``: where the shipped settings for ``accelerate`` are."""

import sys

from expunge.cli.output import fail
from expunge.core.errors import ExpungeError


def main(arguments: list[str]) -> int:
    """Print the path of the named settings, or of all of them.

    Args:
        arguments: Names; none means all.

    Returns:
        The exit code.
    """
    from expunge.engine import configs

    try:
        files = [configs.path(name) for name in arguments or configs.names()]
    except ExpungeError as error:
        return fail(error, as_json=False)
    print("\n".join(map(str, files)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
