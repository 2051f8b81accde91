"""Charts of distributions: strips of points, distribution functions, columns of a histogram."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from expunge.report.svg.axes import QUARTERS, Range, Scale, below, beside, plain, round_ticks
from expunge.report.svg.curves import Frame, Series, lines
from expunge.report.svg.marks import NARROW, WIDE, Words, across, chart, mark, name, room, tag, text

GOLDEN = 0.6180339887
"""Multiples of it, modulo 1, are spread evenly however many there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Values of one group of rows: its name, the values, its tone, the interval of their mean.

    Attributes:
        label: Its name.
        values: One a row.
        tone: Its colour.
        interval: Of the mean, or None.
        margin: Half the width of a band around its distribution function, or None.
    """

    label: str
    values: Sequence[float]
    tone: str
    interval: Range | None = None
    margin: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of a histogram: from where to where, and how many."""

    low: float
    high: float
    count: int


def strips(samples: Sequence[Sample], words: Words, width: float = WIDE) -> Markup:
    """One strip a sample: a point for every value, a tick at their mean, the mean's interval.

    Args:
        samples: The strips, from the top.
        words: What the chart says of itself.
        width: Of the chart.
    """
    is_wide = width > NARROW
    left = room(one.label for one in samples) + 22 if is_wide else 10.0
    pitch, top = (72.0, 6.0) if is_wide else (90.0, 12.0)
    x = Scale(0, 1, left, width - 16)
    bottom = top + pitch * len(samples)
    marks = [below(x, QUARTERS, (top, bottom), words.x)]
    for number, one in enumerate(samples):
        middle = top + pitch * (number + 0.5) + (-4 if is_wide else 4)
        if is_wide:
            marks.append(text(one.label, left - 14, middle + 4.5, "end", class_=name(one.tone)))
        else:
            marks.append(text(one.label, left, middle - 30, class_=name(one.tone)))
        marks.append(_strip(one, x, middle, pitch * 0.22))
    return chart(words, width, bottom + 44, marks)


def _strip(one: Sample, x: Scale, middle: float, spread: float) -> Markup:
    marks = [
        mark(one.tone, x(value), middle + spread * (2 * (rank * GOLDEN % 1) - 1), 3)
        for rank, value in enumerate(sorted(one.values), start=1)
    ]
    mean = sum(one.values) / len(one.values)
    height = spread + 7
    told = tag("title", f"{one.label}: mean {mean:.2f} of {len(one.values)} rows")
    tick = {"x1": x(mean), "x2": x(mean), "y1": middle - height, "y2": middle + height}
    ticks = [tag("line", class_=part, **tick) for part in ("halo", "mean")]
    if one.interval is not None:
        ticks.append(across(x, one.interval, middle + height + 2))
    return tag("g", told, tag("g", *marks, class_="points"), *ticks)


def ecdf(
    samples: Sequence[Sample], words: Words, x: Sequence[float] = QUARTERS, width: float = WIDE
) -> Markup:
    """Empirical distribution functions: at each x the share of values up to there.

    Args:
        samples: One curve each.
        words: What the chart says of itself.
        x: Ticks of the axis below; first and last are its ends.
        width: Of the chart.
    """
    curves = [
        Series(label=one.label, points=points, tone=one.tone, bounds=_margin(points, one.margin))
        for one in samples
        for points in [_steps(one.values, min(x), max(x))]
    ]
    return lines(curves, words, Frame(x=x, is_marked=False), width)


def _steps(values: Sequence[float], low: float, high: float) -> list[tuple[float, float]]:
    points, height = [(low, 0.0)], 0.0
    for rank, value in enumerate(sorted(values), start=1):
        inside = min(high, max(low, value))
        points += [(inside, height), (inside, rank / len(values))]
        height = rank / len(values)
    return [*points, (high, 1.0)]


def _margin(points: Sequence[tuple[float, float]], margin: float | None) -> list[Range] | None:
    if margin is None:
        return None
    return [(max(0.0, y - margin), min(1.0, y + margin)) for _, y in points]


def columns(found: Sequence[Column], words: Words, width: float = WIDE) -> Markup:
    """A histogram: a column for each stretch of values, as high as the rows in it are many.

    Args:
        found: The columns, from the left.
        words: What the chart says of itself.
        width: Of the chart.
    """
    height = 260.0
    most = max(1, *(one.count for one in found))
    x = Scale(found[0].low, found[-1].high, 48, width - 16)
    y = Scale(0, most, height - 52, 30)
    ticks = [tick for tick in round_ticks((0, most)) if tick == int(tick)]
    marks = [
        below(x, round_ticks((x.low, x.high)), (y(most), y(0)), words.x),
        beside((x.start, x.end), y, words.y, ticks, plain),
    ]
    for one in found:
        left, right = x(one.low) + 1, x(one.high) - 1
        size = {"width": right - left, "height": y(0) - y(one.count)}
        told = tag("title", f"{one.count} rows from {one.low:g} to {one.high:g}")
        shape = tag("rect", told, x=left, y=y(one.count), class_="fill tone-original", **size)
        marks.append(shape)
        if one.count:
            middle = (left + right) / 2
            marks.append(text(str(one.count), middle, y(one.count) - 5, "middle", "number"))
    return chart(words, width, height, marks)
