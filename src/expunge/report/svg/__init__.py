"""Charts as inline SVG: rows with intervals, curves, strips of points, planes, columns.

A chart is one element without script, without reference to anything outside and without a colour
of its own: every mark carries the class of a *tone*, to which the page's style sheet gives a colour
for light and for dark. Tones differ in shape and dash as well, so that nobody has to tell colours
apart, every series is labelled where it ends, and every chart says in words what it shows.

Lengths are pixels of the chart's own coordinates. `figure` draws a chart once for wide and once for
narrow pages; the style sheet shows one of them.
"""

from expunge.report.svg.axes import QUARTERS, Range, Scale, round_ticks
from expunge.report.svg.curves import Frame, Series, lines
from expunge.report.svg.distributions import Column, Sample, columns, ecdf, strips
from expunge.report.svg.levels import Level, Placed, levels
from expunge.report.svg.marks import LINE, NARROW, WIDE, Words, apart, figure, small, tag
from expunge.report.svg.plane import Guide, Spot, plane
from expunge.report.svg.rows import Bar, bars

__all__ = [
    "LINE",
    "NARROW",
    "QUARTERS",
    "WIDE",
    "Bar",
    "Column",
    "Frame",
    "Guide",
    "Level",
    "Placed",
    "Range",
    "Sample",
    "Scale",
    "Series",
    "Spot",
    "Words",
    "apart",
    "bars",
    "columns",
    "ecdf",
    "figure",
    "levels",
    "lines",
    "plane",
    "round_ticks",
    "small",
    "strips",
    "tag",
]
