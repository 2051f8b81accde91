"""Charts of rows: a name, a length with its interval and its gate, and what it says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from markupsafe import Markup

from expunge.report.svg.axes import QUARTERS, Scale, below
from expunge.report.svg.marks import NARROW, WIDE, Words, across, chart, room, tag, text


class Row(Protocol):
    """What every row has: a name, and what stands at its end."""

    @property
    def label(self) -> str:
        """Its name."""

    @property
    def detail(self) -> str:
        """What stands at its end."""


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
        heading: What stands above it, where a group of bars begins.
    """

    label: str
    value: float | None
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    tone: str = "model"
    detail: str = ""
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Where the rows of a chart lie: labels left, details right; above each row when narrow."""

    x: Scale
    top: float
    is_wide: bool
    width: float
    pitch: float

    @classmethod
    def of(cls, rows: Sequence[Row], width: float, pitch: float, low: float = 0.0) -> "Sheet":
        """The sheet of some rows."""
        is_wide = width > NARROW
        left = room(row.label for row in rows) + 18 if is_wide else 8.0
        right = max(16.0, room(row.detail for row in rows) + 18) if is_wide else 12.0
        top = 8.0 if is_wide else 4.0
        x = Scale(low, 1.0, left, width - right)
        return cls(x, top, is_wide, width, pitch if is_wide else pitch + 18)

    def named(self, row: Row, middle: float) -> list[Markup]:
        """The name and the detail of a row whose middle is there."""
        left, right = self.x.start, self.x.end
        if self.is_wide:
            detail = text(row.detail, right + 12, middle + 4.5, class_="number")
            return [text(row.label, left - 12, middle + 4.5, "end"), detail]
        above = middle - self.pitch / 2 + 15
        return [
            text(row.label, left, above),
            text(row.detail, right, above, "end", class_="number"),
        ]


def bars(rows: Sequence[Bar], words: Words, width: float = WIDE) -> Markup:
    """Horizontal bars from 0 to 1 with their intervals and thresholds.

    Args:
        rows: The bars, from the top.
        words: What the chart says of itself.
        width: Of the chart.
    """
    sheet = Sheet.of(rows, width, 30.0)
    down, drawn = sheet.top, []
    for row in rows:
        if row.heading:
            down += 26 if down > sheet.top else 20
            drawn.append(text(row.heading, 2 if sheet.is_wide else sheet.x.start, down - 5,
                              class_="heading"))  # fmt: skip
        middle = down + sheet.pitch / 2 + (0 if sheet.is_wide else 8)
        drawn += [_bar(row, sheet.x, middle), *sheet.named(row, middle - 8 * (not sheet.is_wide))]
        down += sheet.pitch
    return chart(
        words, width, down + 44, [below(sheet.x, QUARTERS, (sheet.top, down), words.x), *drawn]
    )


def _bar(row: Bar, x: Scale, middle: float) -> Markup:
    def rect(end: float, half: float, class_: str) -> Markup:
        size = {"width": end - x.start, "height": 2 * half}
        return tag("rect", x=x.start, y=middle - half, rx=3, class_=class_, **size)

    marks = [rect(x.end, 6, "track")]
    if row.value is not None:
        marks.append(rect(x(row.value), 6, f"fill tone-{row.tone}"))
    if row.interval is not None:
        marks.append(across(x, row.interval, middle))
    if row.threshold is not None:
        at = x(row.threshold)
        marks.append(tag("line", x1=at, x2=at, y1=middle - 11, y2=middle + 11, class_="gate"))
    return tag("g", tag("title", f"{row.label}: {row.detail}"), *marks)
