"""What every chart is made of: elements, texts, marks in the shape of their tone, the frame."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDE, NARROW = 720.0, 360.0
CHARACTER = 7.0
"""Width of a character of a label, about."""
MOST = 24
"""Characters of a label that are shown; the whole of it is a hover away."""
WHOLE = ("axis", "heading")
"""Texts with a line of their own, which are never cut."""
LINE = 17.0
"""Least distance between two labels."""
KEY = 18.0
"""Length of the piece of line before a name."""

DASHES: Mapping[str, str] = {"reference": "7 5", "contrast": "2 5", "plain": "1 3"}
"""Tone -> how its lines are broken; others are whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """What a chart says of itself.

    Attributes:
        title: What is shown.
        description: Its data in words, for who cannot see it.
        x: Name and unit of the axis below.
        y: Name and unit of the axis beside.
        note: What its intervals are, or why it has none.
    """

    title: str
    description: str
    x: str = ""
    y: str = ""
    note: str = ""


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


def figure(draw: Callable[[float], Markup], words: Words) -> Markup:
    """A chart for wide and one for narrow pages, under its title and above its note.

    Args:
        draw: Makes the chart of a given width.
        words: What it says of itself.
    """
    wide, narrow = (
        tag("div", draw(width), class_=name) for width, name in ((WIDE, "wide"), (NARROW, "narrow"))
    )
    return _figure(wide + narrow, words, "plot")


def small(draw: Callable[[float], Markup], words: Words) -> Markup:
    """A chart of narrow pages that stands beside others where there is room."""
    return _figure(draw(NARROW), words, "plot small-plot")


def _figure(charts: Markup, words: Words, class_: str) -> Markup:
    title = tag("figcaption", words.title)
    note = tag("p", words.note, class_="note") if words.note else ""
    return tag("figure", title, charts, note, class_=class_)


def chart(words: Words, width: float, height: float, marks: Sequence[Markup]) -> Markup:
    """The element of a chart."""
    return tag(
        "svg",
        tag("title", words.title),
        tag("desc", words.description),
        *marks,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_="chart",
    )


def text(told: str, x: float, y: float, anchor: str = "start", class_: str = "label") -> Markup:
    """A text, cut where it is too long to be a label."""
    anchored = None if anchor == "start" else anchor
    shown = told if len(told) <= MOST or class_ in WHOLE else f"{told[: MOST - 1]}…"
    return tag("text", shown, x=x, y=y, text_anchor=anchored, class_=class_)


def mark(tone: str, x: float, y: float, r: float, told: str = "") -> Markup:
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


def key(tone: str, x: float, y: float) -> Markup:
    """A short piece of a line, before its name."""
    dash, path = DASHES.get(tone), f"M{x:.1f} {y:.1f}h{KEY:g}"
    return tag("path", d=path, class_=f"line tone-{tone}", stroke_dasharray=dash)


def across(x: Callable[[float], float], bounds: tuple[float, float], y: float) -> Markup:
    """A whisker that lies, on a halo.

    Args:
        x: Places along it.
        bounds: Its ends.
        y: Its height.
    """
    low, high = map(x, bounds)
    ends = f"M{low:.1f} {y - 4:.1f}v8M{high:.1f} {y - 4:.1f}v8"
    return _whisker(f"M{low:.1f} {y:.1f}H{high:.1f}{ends}")


def upright(
    x: float, y: Callable[[float], float], bounds: tuple[float, float], half: float = 4.0
) -> Markup:
    """A whisker that stands, on a halo.

    Args:
        x: Its place.
        y: Heights along it.
        bounds: Its ends.
        half: Half the width of its ends.
    """
    low, high = map(y, bounds)
    width = f"h{2 * half:g}"
    ends = f"M{x - half:.1f} {low:.1f}{width}M{x - half:.1f} {high:.1f}{width}"
    return _whisker(f"M{x:.1f} {low:.1f}V{high:.1f}{ends}")


def _whisker(path: str) -> Markup:
    return Markup("").join(tag("path", d=path, class_=part) for part in ("halo", "whisker"))


def name(tone: str) -> str:
    """The class of a text in the colour of a tone."""
    return f"name tone-{tone}"


def room(names: Iterable[str]) -> float:
    """Width of the longest name, as it is shown."""
    return max((min(len(name), MOST) for name in names), default=0) * CHARACTER


def apart(places: Sequence[float], low: float, high: float) -> list[float]:
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
