"""expunge: make a language model forget on request, and show whether it did.

The public names below load what they need when they are first used; importing this package
imports no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "forget": "expunge.api",
    "guard": "expunge.api",
    "load": "expunge.api",
    "Change": "expunge.engine.change",
    "load_change": "expunge.engine.change",
    "revert": "expunge.engine.change",
    "Task": "expunge.engine.task",
    "Subject": "expunge.lm.subject",
    "Row": "expunge.requests.rows",
    "Turn": "expunge.requests.rows",
    "read_rows": "expunge.data.jsonl",
    "write_rows": "expunge.data.jsonl",
    "Audit": "expunge.audit.record",
    "sign": "expunge.report.certificate",
    "verify": "expunge.report.certificate",
    "ExpungeError": "expunge.core.errors",
    "Leak": "expunge.core.results",
    "Outcome": "expunge.core.results",
    "Value": "expunge.core.results",
    "Verdict": "expunge.core.results",
    "listening": "expunge.core.events",
}

_ROOMS = ("audit", "methods", "metrics", "attacks", "guards", "benchmarks")
"""Rooms that are public names themselves: the call ``audit(...)`` and the five registries."""

__all__ = sorted([*_HOME, *_ROOMS, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"expunge.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'expunge' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
