"""How close a number is to that of a retrained model, whichever side it misses on."""

from collections.abc import Mapping
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import table, unmeasurable


def closeness(value: float, target: float) -> float:
    """1 at the target, falling evenly to 0 at nothing and at twice the target.

    Args:
        value: A number of at least 0.
        target: What it should be; where that is 0, nothing counts as close.

    Example:
        >>> closeness(30, 40), closeness(60, 40), closeness(90, 40), closeness(5, 0)
        (0.75, 0.5, 0.0, 0.0)
    """
    return 0.0 if target == 0 else max(0.0, 1.0 - abs(value / target - 1.0))


def between(original: float, reference: float, share: float) -> float:
    """A point on the straight line from the original's number to the retrained model's.

    Example:
        >>> between(90.0, 30.0, 60 / 300)
        78.0
    """
    return original + (reference - original) * share


def as_retrained(scores: Mapping[str, Any], requests: int, total: int) -> Value:
    """Closeness of a model's quality to what a retrained model has after so many requests.

    Args:
        scores: ``parts``: ``model`` and ``reference``, the quality of the two; and ``original``
            where fewer than all requests were made.
        requests: Requests made so far.
        total: Requests after which the reference was retrained.

    Returns:
        The closeness in [0, 1], with the target among the parts.
    """
    parts = table(scores, "parts")
    needed = ("model", "reference") if requests == total else ("model", "reference", "original")
    if lacking := [name for name in needed if name not in parts]:
        return unmeasurable(f"the quality of the {' and the '.join(lacking)} was not measured")
    if requests > total:
        return unmeasurable(f"{requests} requests are more than the {total} of the reference")
    ends = parts.get("original", parts["reference"]), parts["reference"]
    target = between(*ends, requests / total)
    if min(parts["model"], target) < 0:
        return unmeasurable("a quality is below 0")
    note = "0 because the target is 0" if target == 0 else ""
    found = {"quality": parts["model"], "target": target}
    return Value(mean=closeness(parts["model"], target), parts=found, note=note)
