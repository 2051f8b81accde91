"""Attacks: one file each, found by scanning this folder; ``expunge.attacks`` is their registry."""

from typing import Any

from expunge.core import registry


def __getattr__(name: str) -> Any:
    return getattr(registry.attacks, name)
