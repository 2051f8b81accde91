"""Numbers made of other numbers: their harmonic mean, and what is said when one is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import harmonic_mean
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import asked, unmeasurable

Form = Callable[[Mapping[str, float]], Mapping[str, float]]
"""The numbers as given -> the numbers whose mean is taken."""


def harmonic(parts: Mapping[str, float]) -> Value:
    """The harmonic mean of some numbers, none below 0; 0 when one of them is.

    Args:
        parts: Name -> number.

    Returns:
        The mean, the parts, and a note naming the parts that are 0 when the mean is.
    """
    below = [name for name, part in parts.items() if not part >= 0]
    if below:
        return unmeasurable(f"{', '.join(below)} is below 0 or not a number")
    zero = [name for name, part in parts.items() if part == 0]
    note = f"0 because {', '.join(zero)} is 0" if zero else ""
    return Value(mean=harmonic_mean(tuple(parts.values())), parts=dict(parts), note=note)


def harmonic_of(
    scores: Mapping[str, Any], names: Sequence[str], form: Form, *, note: str = ""
) -> Value:
    """The harmonic mean of what is made of certain numbers.

    Args:
        scores: ``parts``: name -> number, None where it was not measured.
        names: The numbers it takes, no more and no fewer.
        form: What is made of them.
        note: What a reader must know in any case.
    """
    given = asked(scores, "parts")
    lacking = [name for name in names if given.get(name) is None]
    if lacking:
        return unmeasurable(f"{', '.join(lacking)} was not measured")
    if unknown := [name for name in given if name not in names]:
        return unmeasurable(f"{', '.join(unknown)} is none of its parts: {', '.join(names)}")
    value = harmonic(form({name: float(given[name]) for name in names}))
    return replace(value, note="; ".join(filter(None, (value.note, note))))
