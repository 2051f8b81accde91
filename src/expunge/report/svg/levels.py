"""Charts of levels: whose value lies where on one scale, and whether within the band of a gate."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from expunge.report.svg.axes import QUARTERS, below
from expunge.report.svg.marks import WIDE, Words, across, chart, mark, name, room, tag, text
from expunge.report.svg.rows import Sheet


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """One mark of a level: whose it is, where it lies, its interval, its tone."""

    label: str
    value: float
    interval: tuple[float, float] | None = None
    tone: str = "model"


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One row with several marks on one scale.

    Attributes:
        label: What is measured.
        marks: The values, later ones on top.
        band: What lies within a gate, or None.
        detail: What stands at its end.
    """

    label: str
    marks: Sequence[Placed]
    band: tuple[float, float] | None = None
    detail: str = ""

    @property
    def told(self) -> str:
        """Its marks in words, for who cannot see them."""
        marks = ", ".join(map(_told, self.marks))
        return f"{self.label}: {marks}" + (f"; {self.detail}" if self.detail else "")


def _told(one: Placed) -> str:
    bounds = f" ({one.interval[0]:.2f} to {one.interval[1]:.2f})" if one.interval else ""
    return f"{one.label} {one.value:.2f}{bounds}"


def levels(rows: Sequence[Level], words: Words, width: float = WIDE) -> Markup:
    """Rows of marks with their intervals on one scale from 0 to 1, each before its gate's band.

    Args:
        rows: The rows, from the top.
        words: What the chart says of itself.
        width: Of the chart.
    """
    most = max(len(row.marks) for row in rows)
    sheet = Sheet.of(rows, width, 26.0 + 13 * most)
    drawn = []
    for number, row in enumerate(rows):
        top = sheet.top + sheet.pitch * number
        middle = top + sheet.pitch / 2
        drawn += [
            _level(row, sheet, middle + (0 if sheet.is_wide else 9)),
            *sheet.named(row, middle),
        ]
    bottom = sheet.top + sheet.pitch * len(rows)
    axis = below(sheet.x, QUARTERS, (sheet.top, bottom), words.x)
    tones = list(dict.fromkeys((one.tone, one.label) for row in rows for one in row.marks))
    legend, below_legend = _legend(tones, sheet.x.start, bottom + 62, width)
    return chart(words, width, below_legend, [axis, *drawn, legend])


def _level(row: Level, sheet: Sheet, middle: float) -> Markup:
    """The band, then the marks under one another, so that no interval hides another."""
    x, drawn = sheet.x, []
    half = 6.5 * len(row.marks) + 5
    if row.band is not None:
        low, high = map(x, row.band)
        size = {"width": high - low, "height": 2 * half}
        drawn.append(tag("rect", x=low, y=middle - half, class_="gate-band", **size))
    drawn.append(tag("line", x1=x.start, x2=x.end, y1=middle, y2=middle, class_="grid"))
    for rank, one in enumerate(row.marks):
        at = middle + 13 * (rank - (len(row.marks) - 1) / 2)
        if one.interval is not None:
            drawn.append(across(x, one.interval, at))
        told = f"{row.label}, {one.label}: {one.value:.2f}"
        drawn.append(mark(one.tone, x(one.value), at, 5.5, told))
    return tag("g", *drawn)


def _legend(
    tones: Sequence[tuple[str, str]], left: float, top: float, width: float
) -> tuple[Markup, float]:
    """Whose marks have which shape, wrapped at the width; and where it ends."""
    drawn, x, line = [], left, top
    for tone, label in tones:
        wide = 32 + room([label])
        if x + wide > width and x > left:
            x, line = left, line + 22
        drawn += [mark(tone, x + 6, line - 4.5, 5.5), text(label, x + 18, line, class_=name(tone))]
        x += wide
    return tag("g", *drawn), line + 10
