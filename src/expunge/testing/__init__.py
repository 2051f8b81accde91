"""For authors of components: tiny models, conformance checks, one loss or metric at a time."""

from importlib import import_module
from typing import Any

_HOME = {
    "objective": "expunge.testing.loss",
    "Objective": "expunge.testing.loss",
    "check_method": "expunge.testing.methods",
    "measure": "expunge.testing.metrics",
    "check_metric": "expunge.testing.metrics",
    "check_attack": "expunge.testing.attacks",
    "check_guard": "expunge.testing.guards",
    "tiny_model": "expunge.testing.tiny",
    "tiny_tokenizer": "expunge.testing.tiny",
}

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'expunge.testing' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
