"""Guards: one file each, found by scanning this folder; ``expunge.guards`` is their registry."""

from typing import Any

from expunge.core import registry


def __getattr__(name: str) -> Any:
    return getattr(registry.guards, name)
