"""Axes: from values to pixels, round ticks, grid lines with their numbers and the axis' name."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from expunge.report.svg.marks import CHARACTER, tag, text

QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
TICKS = 7
"""Most steps between the ends of an axis."""
SMALL = 6.2
"""Width of a character of an axis' name, about."""
STEPS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Round steps between ticks."""

Range = tuple[float, float]
"""The two ends of an axis."""
Form = Callable[[float], str]
"""How the number at a tick is written."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to pixels along one axis; what lies outside is drawn at its edge."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        inside = min(self.high, max(self.low, value))
        low, high, at = map(math.log, (self.low, self.high, inside)) if self.is_log else (
            self.low, self.high, inside,
        )  # fmt: skip
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def plain(value: float) -> str:
    """A number as short as it can be."""
    return f"{value:g}"


def share(value: float) -> str:
    """A share as percent.

    Example:
        >>> share(0.25), share(0.005)
        ('25%', '0.5%')
    """
    return f"{100 * value:g}%"


def between(ends: Range, start: float, end: float) -> Scale:
    """A scale whose first value lies at the start, whichever of the two is larger."""
    first, last = ends
    return Scale(first, last, start, end) if first < last else Scale(last, first, end, start)


def round_ticks(ends: Range) -> tuple[float, ...]:
    """Round values from end to end, in the order of the ends."""
    low, high = sorted(ends)
    power = 10.0 ** math.floor(math.log10(high - low))
    step = next(part * power for part in STEPS if high - low <= TICKS * part * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [float(f"{rank * step:.12g}") for rank in range(first, last + 1)]
    return tuple(ticks if ends[0] < ends[1] else ticks[::-1])


def below(
    x: Scale,
    ticks: Sequence[float],
    ends: Range,
    label: str,
    form: Form = plain,
) -> Markup:
    """Grid lines at the ticks, their numbers as far as there is room, the axis' name."""
    (top, bottom), marks, free = ends, [], -1.0
    for tick in sorted(ticks, key=x):
        at, told = x(tick), form(tick)
        marks.append(tag("line", x1=at, x2=at, y1=top, y2=bottom, class_="grid"))
        half = CHARACTER * len(told) / 2
        if at - half >= free:
            marks.append(text(told, at, bottom + 17, "middle", class_="tick"))
            free = at + half + 5
    left, right = sorted((x.start, x.end))
    at = max(4.0, min(left, right - SMALL * len(label)))
    marks.append(text(label, at, bottom + 37, class_="axis"))
    return tag("g", *marks)


def beside(
    ends: Range, y: Scale, label: str, ticks: Sequence[float] = QUARTERS, form: Form = share
) -> Markup:
    """Grid lines at the ticks from left to right, their numbers, the axis' name above."""
    left, right = sorted(ends)
    marks = [text(label, 6, 14, class_="axis")]
    for tick in ticks:
        marks.append(tag("line", x1=left, x2=right, y1=y(tick), y2=y(tick), class_="grid"))
        marks.append(text(form(tick), left - 8, y(tick) + 4.5, "end", class_="tick"))
    return tag("g", *marks)
