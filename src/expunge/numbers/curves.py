"""Numbers along a sequence of requests: ordered by step, and never resampled as if by chance."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from expunge.core.bootstrap import FloatArray
from expunge.core.scores import asked, table


def steps_of(scores: Mapping[str, Any], need: str) -> tuple[dict[str, float], str]:
    """A reading keyed by step, in the order of the steps.

    Args:
        scores: The readings.
        need: Which of them: step ("1", "2", ... "10") -> number.

    Returns:
        Step -> number, ordered by number and not by letter; and why there is none, if so.
    """
    found = table(scores, need)
    if not found:
        return {}, f"no step has {need}"
    odd = [step for step in found if not step.isdecimal()]
    if odd:
        return {}, f"a step of {need} is called {odd[0]!r} and not by its number"
    if len({int(step) for step in found}) < len(found):
        return {}, f"a step of {need} stands twice"
    if absent := [step for step in asked(scores, need) if step not in found]:
        return {}, f"step {absent[0]} has no {need}, and the moves to it and from it are not known"
    if broken := [step for step in found if not math.isfinite(found[step])]:
        return {}, f"{need} of step {broken[0]} is not a number"
    return {step: float(found[step]) for step in sorted(found, key=int)}, ""


def numbered(curve: Mapping[str, float]) -> dict[str, float]:
    """The number of each step, to stand beside the curve."""
    return {step: float(step) for step in curve}


def in_order(values: FloatArray, steps: FloatArray) -> FloatArray | None:
    """A curve by step, or None where a step is repeated.

    A resample of steps is no sequence of requests; what is computed from one is undefined, so
    that no interval over steps is ever reported.

    Args:
        values: [T].
        steps: [T], the number of each step.
    """
    order = np.argsort(steps)
    if len(np.unique(steps)) < len(steps):
        return None
    ordered: FloatArray = values[order]
    return ordered
