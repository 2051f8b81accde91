"""Charts as inline SVG: bars with intervals, lines, strips of points, step curves, planes.

A chart is one element without script, without reference to anything outside and without a colour
of its own: every mark carries the class of a *tone*, to which the page's style sheet gives a colour
for light and for dark. Tones differ in shape and dash as well, so that nobody has to tell colours
apart, every series is labelled where it ends, and every chart says in words what it shows.

Lengths are pixels of the chart's own coordinates. `both` draws a chart once for wide and once for
narrow pages; the style sheet shows one of them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDE, NARROW = 720.0, 360.0
CHARACTER = 7.0
"""Width of a character of a label, about."""
MOST = 24
"""Characters of a label that are shown; the whole of it is a click or a hover away."""
LINE = 17.0
"""Least distance between two labels."""
KEY = 18.0
"""Length of the piece of line before a name."""
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
TICKS = 7
"""Most steps between the ends of an axis."""
STEPS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Round steps between ticks."""
GOLDEN = 0.6180339887
"""Multiples of it, modulo 1, are spread evenly however many there are."""

DASHES: Mapping[str, str] = {"reference": "7 5", "contrast": "2 5", "plain": "1 3"}
"""Tone -> how its lines are broken; others are whole."""

Range = tuple[float, float]
"""The two ends of an axis."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to pixels along one axis; what lies outside is drawn at its edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        inside = min(self.high, max(self.low, value))
        return self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One horizontal bar; without a value only its name and its detail are shown.

    Attributes:
        label: What is measured.
        value: Length in [0, 1], or None.
        interval: Its interval, or None.
        threshold: Where to put a tick, or None.
        tone: Its colour.
        detail: What stands at its end.
    """

    label: str
    value: float | None
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    tone: str = "model"
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line: its name, its points (x, y) and its tone."""

    label: str
    points: Sequence[tuple[float, float]]
    tone: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Values of one group of rows: its name, the values in [0, 1], its tone."""

    label: str
    values: Sequence[float]
    tone: str


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
class Words:
    """What a chart says of itself: a title, a description of its data, and its axes."""

    title: str
    description: str
    x: str = ""
    y: str = ""


def tag(name: str, *inside: object, **attributes: object) -> Markup:
    """An element; text and attributes are escaped, elements are put inside as they are.

    A trailing underscore of an attribute's name is dropped, others become hyphens.
    """
    told = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
        if value is not None
    )
    body = Markup("").join(escape(part) for part in inside)
    return Markup("<{0}{1}>{2}</{0}>").format(name, told, body)


def both(draw: Callable[[float], Markup]) -> Markup:
    """A chart for wide and one for narrow pages.

    Args:
        draw: Makes the chart of a given width.
    """
    return tag("div", draw(WIDE), class_="wide") + tag("div", draw(NARROW), class_="narrow")


def bars(rows: Sequence[Bar], words: Words, width: float = WIDE) -> Markup:
    """Horizontal bars from 0 to 1 with their intervals and thresholds.

    Args:
        rows: The bars, from the top.
        words: What the chart says of itself.
        width: Of the chart.
    """
    is_wide = width > NARROW
    left = _room(row.label for row in rows) + 18 if is_wide else 6.0
    right = _room(row.detail for row in rows) + 18 if is_wide else 10.0
    pitch, top = (34.0, 8.0) if is_wide else (48.0, 22.0)
    x = Scale(0, 1, left, width - right)
    bottom = top + pitch * len(rows)
    marks = [_axis_below(x, QUARTERS, top if is_wide else 4, bottom, words.x)]
    for number, row in enumerate(rows):
        middle = top + pitch * (number + 0.5)
        marks.append(_bar(row, x, middle))
        if is_wide:
            marks.append(_text(row.label, left - 12, middle + 4.5, "end"))
            marks.append(_text(row.detail, width - right + 12, middle + 4.5, class_="number"))
        else:
            marks.append(_text(row.label, left, middle - 12))
            marks.append(_text(row.detail, width - right, middle - 12, "end", class_="number"))
    return _chart(words, width, bottom + 44, marks)


def lines(
    series: Sequence[Series],
    words: Words,
    x_ticks: Sequence[float],
    width: float = WIDE,
    *,
    is_marked: bool = True,
) -> Markup:
    """Lines over a common x axis, y from 0 to 1, each with its name at its end.

    Args:
        series: The lines; later ones lie on top.
        words: What the chart says of itself.
        x_ticks: Ticks of the x axis; first and last are its ends.
        width: Of the chart.
        is_marked: Whether every point is marked.
    """
    height = 380.0 if width > NARROW else 300.0
    right = _room(one.label for one in series) + KEY + 22
    x = Scale(min(x_ticks), max(x_ticks), 48, width - right)
    y = Scale(0, 1, height - 52, 30)
    marks = [_axis_below(x, x_ticks, y(1), y(0), words.x), _axis_beside(x, y, words.y)]
    marks += [_line(one, x, y, is_marked) for one in series]
    ends = _apart([y(one.points[-1][1]) for one in series], low=y(1), high=y(0))
    for one, end in zip(series, ends, strict=True):
        marks.append(_key(one.tone, x.end + 10, end))
        marks.append(_text(one.label, x.end + KEY + 16, end + 4.5, class_=_name(one.tone)))
    return _chart(words, width, height, marks)


def plane(spots: Sequence[Spot], words: Words, x: Range, y: Range, width: float = WIDE) -> Markup:
    """Points with their intervals along both axes, each with its name beside it.

    Args:
        spots: The points; later ones lie on top.
        words: What the chart says of itself.
        x: Ends of the x axis, left first; falling where low is better.
        y: Ends of the y axis, bottom first.
        width: Of the chart.
    """
    height = 420.0 if width > NARROW else 340.0
    right = _room(spot.label for spot in spots) + 26 if width > NARROW else 90.0
    across, up = _between(x, 52, width - right), _between(y, height - 56, 34)
    marks = [
        _axis_below(across, _ticks(x), 34, height - 56, words.x),
        _axis_beside(across, up, words.y, _ticks(y), "{:g}"),
    ]
    marks += [_crossed(spot, across, up) for spot in spots]
    called = [spot for spot in spots if spot.is_named]
    places = _apart([up(spot.y) for spot in called], low=34, high=height - 56)
    for spot, place in zip(called, places, strict=True):
        at = across(spot.x) + 12
        marks.append(_text(spot.label, at, place - 8, class_=_name(spot.tone)))
    return _chart(words, width, height, marks)


def _between(ends: Range, start: float, end: float) -> Scale:
    """A scale whose first value lies at the start, whichever of the two is larger."""
    first, last = ends
    return Scale(first, last, start, end) if first < last else Scale(last, first, end, start)


def _ticks(ends: Range) -> tuple[float, ...]:
    """Round values from end to end, in the order of the ends."""
    low, high = sorted(ends)
    power = 10.0 ** math.floor(math.log10(high - low))
    step = next(part * power for part in STEPS if high - low <= TICKS * part * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [float(f"{rank * step:.12g}") for rank in range(first, last + 1)]
    return tuple(ticks if ends[0] < ends[1] else ticks[::-1])


def _crossed(spot: Spot, x: Scale, y: Scale) -> Markup:
    """A point and its two whiskers."""
    at, up, paths = x(spot.x), y(spot.y), []
    if spot.x_interval is not None:
        low, high = map(x, spot.x_interval)
        ends = f"M{low:.1f} {up - 4:.1f}v8M{high:.1f} {up - 4:.1f}v8"
        paths.append(f"M{low:.1f} {up:.1f}H{high:.1f}{ends}")
    if spot.y_interval is not None:
        low, high = map(y, spot.y_interval)
        ends = f"M{at - 4:.1f} {low:.1f}h8M{at - 4:.1f} {high:.1f}h8"
        paths.append(f"M{at:.1f} {low:.1f}V{high:.1f}{ends}")
    whiskers = [tag("path", d="".join(paths), class_=part) for part in ("halo", "whisker") if paths]
    told = f"{spot.label}: {spot.x:.3g} and {spot.y:.3g}"
    return tag("g", *whiskers, _mark(spot.tone, at, up, 6 if spot.is_named else 3.5, told))


def strips(samples: Sequence[Sample], words: Words, width: float = WIDE) -> Markup:
    """One strip a sample: a point for every value, and a tick at their mean.

    Args:
        samples: The strips, from the top.
        words: What the chart says of itself.
        width: Of the chart.
    """
    is_wide = width > NARROW
    left = _room(one.label for one in samples) + 22 if is_wide else 10.0
    pitch, top = (62.0, 6.0) if is_wide else (78.0, 12.0)
    x = Scale(0, 1, left, width - 16)
    bottom = top + pitch * len(samples)
    marks = [_axis_below(x, QUARTERS, top, bottom, words.x)]
    for number, one in enumerate(samples):
        middle = top + pitch * (number + 0.5) + (0 if is_wide else 8)
        if is_wide:
            marks.append(_text(one.label, left - 14, middle + 4.5, "end", class_=_name(one.tone)))
        else:
            marks.append(_text(one.label, left, middle - 27, class_=_name(one.tone)))
        marks.append(_strip(one, x, middle, pitch * 0.26))
    return _chart(words, width, bottom + 44, marks)


def ecdf(samples: Sequence[Sample], words: Words, width: float = WIDE) -> Markup:
    """Empirical distribution functions: at each x the share of values up to there.

    Args:
        samples: One curve each.
        words: What the chart says of itself.
        width: Of the chart.
    """
    curves = [Series(label=one.label, points=_steps(one.values), tone=one.tone) for one in samples]
    return lines(curves, words, QUARTERS, width, is_marked=False)


def _steps(values: Sequence[float]) -> list[tuple[float, float]]:
    points, height = [(0.0, 0.0)], 0.0
    for rank, value in enumerate(sorted(values), start=1):
        points += [(value, height), (value, rank / len(values))]
        height = rank / len(values)
    return [*points, (1.0, 1.0)]


def _chart(words: Words, width: float, height: float, marks: Sequence[Markup]) -> Markup:
    return tag(
        "svg",
        tag("title", words.title),
        tag("desc", words.description),
        *marks,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_="chart",
    )


def _axis_below(x: Scale, ticks: Sequence[float], top: float, bottom: float, label: str) -> Markup:
    """Grid lines from the ticks upwards, their numbers as far as there is room, the axis' name."""
    marks, free = [], -1.0
    for tick in ticks:
        at = x(tick)
        marks.append(tag("line", x1=at, x2=at, y1=top, y2=bottom, class_="grid"))
        if at >= free:
            marks.append(_text(f"{tick:g}", at, bottom + 17, "middle", class_="tick"))
            free = at + CHARACTER * 3.4
    marks.append(_text(label, min(x.start, x.end), bottom + 37, class_="axis"))
    return tag("g", *marks)


def _axis_beside(
    x: Scale, y: Scale, label: str, ticks: Sequence[float] = QUARTERS, form: str = "{:.0%}"
) -> Markup:
    left, right = sorted((x.start, x.end))
    marks = [_text(label, 6, 14, class_="axis")]
    for tick in ticks:
        marks.append(tag("line", x1=left, x2=right, y1=y(tick), y2=y(tick), class_="grid"))
        marks.append(_text(form.format(tick), left - 8, y(tick) + 4.5, "end", class_="tick"))
    return tag("g", *marks)


def _bar(row: Bar, x: Scale, middle: float) -> Markup:
    def rect(end: float, half: float, class_: str) -> Markup:
        size = {"width": end - x.start, "height": 2 * half}
        return tag("rect", x=x.start, y=middle - half, rx=3, class_=class_, **size)

    marks = [rect(x.end, 6, "track")]
    if row.value is not None:
        marks.append(rect(x(row.value), 6, f"fill tone-{row.tone}"))
    if row.interval is not None:
        low, high = map(x, row.interval)
        ends = f"M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8"
        path = f"M{low:.1f} {middle:.1f}H{high:.1f}{ends}"
        marks += [tag("path", d=path, class_=part) for part in ("halo", "whisker")]
    if row.threshold is not None:
        at = x(row.threshold)
        marks.append(tag("line", x1=at, x2=at, y1=middle - 11, y2=middle + 11, class_="gate"))
    return tag("g", tag("title", f"{row.label}: {row.detail}"), *marks)


def _line(one: Series, x: Scale, y: Scale, is_marked: bool) -> Markup:
    path = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in one.points)
    dash = DASHES.get(one.tone)
    marks = [tag("title", one.label)]
    marks.append(tag("path", d=path, class_=f"line tone-{one.tone}", stroke_dasharray=dash))
    if is_marked:
        marks += [
            _mark(one.tone, x(a), y(b), 5, f"{one.label}: {b:.0%} at {a:g}") for a, b in one.points
        ]
    return tag("g", *marks)


def _key(tone: str, x: float, y: float) -> Markup:
    """A short piece of a line, before its name."""
    dash, path = DASHES.get(tone), f"M{x:.1f} {y:.1f}h{KEY:g}"
    return tag("path", d=path, class_=f"line tone-{tone}", stroke_dasharray=dash)


def _name(tone: str) -> str:
    return f"name tone-{tone}"


def _strip(one: Sample, x: Scale, middle: float, spread: float) -> Markup:
    marks = [
        _mark(one.tone, x(value), middle + spread * (2 * (rank * GOLDEN % 1) - 1), 3)
        for rank, value in enumerate(sorted(one.values), start=1)
    ]
    mean = sum(one.values) / len(one.values)
    height = spread + 8
    told = tag("title", f"{one.label}: mean {mean:.2f} of {len(one.values)} rows")
    tick = {"x1": x(mean), "x2": x(mean), "y1": middle - height, "y2": middle + height}
    ticks = [tag("line", class_=part, **tick) for part in ("halo", "mean")]
    return tag("g", told, tag("g", *marks, class_="points"), *ticks)


def _mark(tone: str, x: float, y: float, r: float, told: str = "") -> Markup:
    """A point in the shape of its tone."""
    a, b = r * 0.9, r * 1.15
    shapes = {
        "model": f"M{-a:g} {-a:g}H{a:g}V{a:g}H{-a:g}Z",
        "reference": f"M0 {-b:g}L{b:g} {a:g}H{-b:g}Z",
        "contrast": f"M0 {-b * 1.1:g}L{b * 1.1:g} 0L0 {b * 1.1:g}L{-b * 1.1:g} 0Z",
    }
    circle = f"M{-r:g} 0a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0Z"
    name = [tag("title", told)] if told else []
    place = f"translate({x:.1f} {y:.1f})"
    path = shapes.get(tone, circle)
    return tag("path", *name, d=path, transform=place, class_=f"mark tone-{tone}")


def _room(names: Iterable[str]) -> float:
    """Width of the longest name, as it is shown."""
    return max(min(len(name), MOST) for name in names) * CHARACTER


def _text(text: str, x: float, y: float, anchor: str = "start", class_: str = "label") -> Markup:
    anchored = None if anchor == "start" else anchor
    shown = text if len(text) <= MOST or class_ == "axis" else f"{text[: MOST - 1]}…"
    return tag("text", shown, x=x, y=y, text_anchor=anchored, class_=class_)


def _apart(places: Sequence[float], low: float, high: float) -> list[float]:
    """The places, moved as little as needed for labels not to overlap, within `low` and `high`."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    edge = low - LINE
    for index in order:
        edge = moved[index] = max(moved[index], edge + LINE)
    edge = high + LINE
    for index in reversed(order):
        edge = moved[index] = min(moved[index], edge - LINE)
    return moved


def _short(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
