"""Benchmarks: one file each, found by scanning; ``expunge.benchmarks`` is their registry."""

from typing import Any

from expunge.core import registry


def __getattr__(name: str) -> Any:
    return getattr(registry.benchmarks, name)
