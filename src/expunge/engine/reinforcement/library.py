"""TRL, imported past folders that are only called like a package it may use.

It asks whether ``requests`` can be imported and then takes names from it. Where that package is not
installed, any folder of this name on the path counts as one, and the import fails.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

OPTIONAL = "requests"


@contextmanager
def _without_namesake() -> Iterator[None]:
    spec = None if OPTIONAL in sys.modules else find_spec(OPTIONAL)
    if spec is None or spec.origin is not None:
        yield
        return
    sys.modules[OPTIONAL] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[OPTIONAL]


with _without_namesake():
    from trl import GRPOConfig, GRPOTrainer

__all__ = ["GRPOConfig", "GRPOTrainer"]
