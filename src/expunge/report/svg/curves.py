"""Charts of curves: lines with whiskers at their points, or with a band around them."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from expunge.report.svg.axes import QUARTERS, Form, Range, Scale, below, beside, plain, share
from expunge.report.svg.marks import (
    DASHES,
    KEY,
    NARROW,
    WIDE,
    Words,
    apart,
    chart,
    key,
    mark,
    name,
    room,
    tag,
    text,
    upright,
)

ASIDE = 5.0
"""How far series are moved apart where they have whiskers at the same places."""
INSET = 12.0
"""Room between the first mark and the axis."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line.

    Attributes:
        label: Its name.
        points: Its points (x, y).
        tone: Its colour.
        bounds: The interval of each point, or None.
    """

    label: str
    points: Sequence[tuple[float, float]]
    tone: str
    bounds: Sequence[Range] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """The axes of a chart of curves.

    Attributes:
        x: Ticks of the axis below; first and last are its ends.
        y: The same of the axis beside.
        x_form: How numbers below are written.
        y_form: How numbers beside are written.
        x_log: Whether equal ratios below are equal lengths.
        y_log: The same beside.
        is_marked: Whether every point is marked.
    """

    x: Sequence[float]
    y: Sequence[float] = QUARTERS
    x_form: Form = plain
    y_form: Form = share
    x_log: bool = False
    y_log: bool = False
    is_marked: bool = True


def lines(series: Sequence[Series], words: Words, frame: Frame, width: float = WIDE) -> Markup:
    """Lines over a common x axis, each with its name at its end.

    Args:
        series: The lines; later ones lie on top.
        words: What the chart says of itself.
        frame: The axes.
        width: Of the chart.
    """
    height = 380.0 if width > NARROW else 300.0
    left, right = 48.0, width - room(one.label for one in series) - KEY - 22
    inset = INSET if frame.is_marked else 0.0
    x = Scale(min(frame.x), max(frame.x), left + inset, right - inset, frame.x_log)
    y = Scale(min(frame.y), max(frame.y), height - 52, 30, frame.y_log)
    marks = [
        below(x, frame.x, (y.end, y.start), words.x, frame.x_form),
        beside((left, right), y, words.y, frame.y, frame.y_form),
    ]
    for rank, one in enumerate(series):
        marks.append(_band(one, x, y) if not frame.is_marked else Markup(""))
        aside = ASIDE * (rank - (len(series) - 1) / 2) if _whiskers(series, frame) else 0.0
        marks.append(_line(one, x, y, frame, aside))
    ends = apart([y(one.points[-1][1]) for one in series], low=y.end, high=y.start)
    for one, end in zip(series, ends, strict=True):
        marks.append(key(one.tone, right + 10, end))
        marks.append(text(one.label, right + KEY + 16, end + 4.5, class_=name(one.tone)))
    return chart(words, width, height, marks)


def _whiskers(series: Sequence[Series], frame: Frame) -> bool:
    return frame.is_marked and any(one.bounds is not None for one in series)


def _line(one: Series, x: Scale, y: Scale, frame: Frame, aside: float) -> Markup:
    places = [(x(a) + aside, y(b)) for a, b in one.points]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    dash = DASHES.get(one.tone)
    marks = [tag("title", one.label)]
    marks.append(tag("path", d=path, class_=f"line tone-{one.tone}", stroke_dasharray=dash))
    if frame.is_marked:
        for bounds, (at, _) in zip(one.bounds or (), places, strict=False):
            marks.append(upright(at, y, bounds, 3.0))
        marks += [
            mark(one.tone, *place, 4.5, f"{one.label}: {frame.y_form(round(b, 3))} at {a:g}")
            for place, (a, b) in zip(places, one.points, strict=True)
        ]
    return tag("g", *marks)


def _band(one: Series, x: Scale, y: Scale) -> Markup:
    """What lies between the bounds of a curve, with thin edges that show without colour."""
    if one.bounds is None:
        return Markup("")
    bounds = list(zip(one.points, one.bounds, strict=True))
    lower, upper = ([(x(a), y(both[side])) for (a, _), both in bounds] for side in (0, 1))
    around = "L".join(f"{a:.1f} {b:.1f}" for a, b in (*lower, *upper[::-1]))
    return tag("path", d=f"M{around}Z", class_=f"spread tone-{one.tone}")
