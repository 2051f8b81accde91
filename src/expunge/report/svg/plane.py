"""Points of a plane with their intervals along both axes, before lines that explain it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from expunge.report.svg.axes import Range, Scale, below, beside, between, plain, round_ticks
from expunge.report.svg.marks import (
    NARROW,
    WIDE,
    Words,
    across,
    apart,
    chart,
    mark,
    name,
    room,
    tag,
    text,
    upright,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """One point of a plane: its name, its place, its intervals along both axes, its tone.

    One that is not named is small, and says its name only when asked.
    """

    label: str
    x: float
    y: float
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None
    tone: str = "model"
    is_named: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Guide:
    """A thin line behind the points, with its name at its first point."""

    label: str
    points: Sequence[tuple[float, float]]


def plane(
    spots: Sequence[Spot],
    words: Words,
    x: Range,
    y: Range,
    width: float = WIDE,
    *,
    guides: Sequence[Guide] = (),
) -> Markup:
    """Points with their intervals along both axes, each with its name beside it.

    Args:
        spots: The points; later ones lie on top.
        words: What the chart says of itself.
        x: Ends of the x axis, left first; falling where low is better.
        y: Ends of the y axis, bottom first.
        width: Of the chart.
        guides: Lines behind the points.
    """
    height = 420.0 if width > NARROW else 340.0
    right = room(spot.label for spot in spots) + 26 if width > NARROW else 90.0
    along, up = between(x, 52, width - right), between(y, height - 56, 34)
    marks = [
        below(along, round_ticks(x), (34, height - 56), words.x),
        beside((52, along.end if x[0] < x[1] else along.start), up, words.y, round_ticks(y), plain),
        *(_guide(one, along, up) for one in guides),
    ]
    marks += [_crossed(spot, along, up) for spot in spots]
    called = [spot for spot in spots if spot.is_named]
    places = apart([up(spot.y) for spot in called], low=34, high=height - 56)
    for spot, place in zip(called, places, strict=True):
        marks.append(text(spot.label, along(spot.x) + 12, place - 8, class_=name(spot.tone)))
    return chart(words, width, height, marks)


def _guide(one: Guide, x: Scale, y: Scale) -> Markup:
    places = [(x(a), y(b)) for a, b in one.points]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    at, up = places[0]
    line = tag("path", d=path, class_="guide")
    return tag("g", line, text(one.label, at + 4, up + 12, class_="tick"))


def _crossed(spot: Spot, x: Scale, y: Scale) -> Markup:
    """A point and its two whiskers."""
    at, up = x(spot.x), y(spot.y)
    whiskers = []
    if spot.x_interval is not None:
        whiskers.append(across(x, spot.x_interval, up))
    if spot.y_interval is not None:
        whiskers.append(upright(at, y, spot.y_interval))
    told = f"{spot.label}: {spot.x:.3g} and {spot.y:.3g}"
    return tag("g", *whiskers, mark(spot.tone, at, up, 6 if spot.is_named else 3.5, told))
