"""Made-up readings, on which the conformance suite tries every metric.

A file of this folder has ``READINGS``: reading -> ``(draw, forgot) -> value`` of one row, where
``forgot`` is 0 for a model that knows the rows by heart, 1 for one that never saw them, and more
for one in ruins. It may have ``WORLDS``: metric -> ``(seed, forgot) -> (scores, reference)``, for
metrics whose direction does not show on rows drawn apart.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import numpy as np

Reading = Callable[[np.random.Generator, float], Any]
World = Callable[[int, float], tuple[Mapping[str, Any], Mapping[str, Any] | None]]


@cache
def readings() -> dict[str, Reading]:
    """All known readings, by name."""
    return _all("READINGS")


@cache
def worlds() -> dict[str, World]:
    """Metrics with a world of their own."""
    return _all("WORLDS")


def _all(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for module in sorted(each.name for each in iter_modules(__path__)):
        found |= getattr(import_module(f"{__name__}.{module}"), name, {})
    return found
