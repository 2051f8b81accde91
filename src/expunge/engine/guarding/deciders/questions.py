"""Typed questions as servers and the library write them, and what their answers must be like."""

import math
from collections.abc import Sequence
from typing import Any

OPTIONS = 25
"""Most options of one question; more are cut down to a shortlist before they come here."""

QUESTION = "q"
"""Name of the only question of a request."""


def checked(options: Sequence[str]) -> Sequence[str]:
    """Options a question can have.

    Raises:
        ValueError: For none, too many, or the same one twice.
    """
    if not 1 <= len(options) <= OPTIONS or len(set(options)) < len(options):
        raise ValueError(f"{len(options)} options: 1 to {OPTIONS} different ones")
    return options


def levels_named(levels: int) -> list[str]:
    """Names of levels, from 1 on.

    Raises:
        ValueError: For too few or too many.
    """
    if not 2 <= levels <= OPTIONS:
        raise ValueError(f"{levels} levels: 2 to {OPTIONS}")
    return [str(level) for level in range(1, levels + 1)]


def noul(question: str) -> dict[str, Any]:
    """A question of yes or no, as ``/v1/systemone`` takes it."""
    return {"type": "noul", "instructions": question}


def choice(question: str, options: Sequence[str]) -> dict[str, Any]:
    """A question with options, as ``/v1/systemone`` takes it."""
    return {"type": "choice", "instructions": question, "criteria": dict.fromkeys(options)}


def score(question: str, levels: Sequence[str]) -> dict[str, Any]:
    """A question with levels, as ``/v1/systemone`` takes it."""
    return {"type": "score", "instructions": question, "criteria": list(levels)}


def normal(weights: Sequence[float]) -> list[float]:
    """Weights that add up to 1."""
    total = math.fsum(weights)
    return [weight / total for weight in weights]
