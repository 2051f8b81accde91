"""The page of a stream of requests: what is still known after each of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from expunge.core.atomic import write_text
from expunge.report.bounds import wilson
from expunge.report.html import clean, page
from expunge.report.svg import Frame, Series, Words, figure, lines

Record = Mapping[str, Any]

TONES = {"retain": "original", "neighbour": "reference", "holdout": "reference"}
ASKED, WAITING = "asked for so far", "not asked for yet"
MOST_TICKS = 10


def write_stream(record: Record, path: str | Path) -> Path:
    """Write the page beside the record.

    Args:
        record: The content of ``stream.json``.
        path: Where to.
    """
    write_text(path, render_stream(record))
    return Path(path)


def render_stream(record: Record) -> str:
    """One HTML page that stands for itself."""
    told = clean(record)
    return page(
        "stream",
        record=told,
        plot=still_known(told),
        rows=[_row(told, place) for place in range(len(told["requests"]))],
        roles=list(told["original"]["kept"]),
    )


def still_known(record: Record) -> Markup | None:
    """Share of tokens still known over the requests: of what was asked for, and of what stays."""
    looks = [record["original"], *(one["after"] for one in record["requests"])]
    sizes = [one["rows"] for one in record["requests"]]
    if len(looks) < 2:
        return None
    found: dict[str, list[tuple[float, float]]] = {WAITING: [], ASKED: []}
    counts: dict[str, list[int]] = {WAITING: [], ASKED: []}
    for place, look in enumerate(looks):
        known = [one["accuracy"] for one in look["requests"]][: len(sizes)]
        for name, part in ((ASKED, slice(0, place)), (WAITING, slice(place, None))):
            if known[part]:
                found[name].append((place, _mean(known[part], sizes[part])))
                counts[name].append(sum(sizes[part]))
        for role, of in look["kept"].items():
            found.setdefault(role, []).append((place, of["accuracy"]))
    series = [
        Series(
            label=name,
            points=points,
            tone={ASKED: "model", WAITING: "good"}.get(name) or TONES[name],
            bounds=_bounds(points, counts.get(name)),
        )
        for name, points in found.items()
        if points
    ]
    ends = [f"{one.label} {one.points[-1][1]:.0%}" for one in series]
    words = Words(
        title="What is still known after each request",
        description="After the last request: " + ", ".join(ends) + ".",
        x="requests carried out",
        y="answer tokens that are the first choice",
        note="Lines: 95% Wilson intervals over rows, of the requests.",
    )
    last = len(looks) - 1
    every = -(-last // MOST_TICKS)
    ticks = sorted({*range(0, last + 1, every), last})
    return figure(lambda width: lines(series, words, Frame(x=ticks), width), words)


def _bounds(
    points: Sequence[tuple[float, float]], counts: Sequence[int] | None
) -> list[tuple[float, float]] | None:
    if counts is None:
        return None
    found = [wilson(value, n) for (_, value), n in zip(points, counts, strict=True)]
    return [one for one in found if one is not None] or None


def _mean(known: Sequence[float], sizes: Sequence[int]) -> float:
    """Over rows: a request weighs by how many it has."""
    weighed = zip(known, sizes, strict=True)
    return sum(value * size for value, size in weighed) / sum(sizes)


def _row(record: Record, place: int) -> dict[str, Any]:
    one = record["requests"][place]
    before = record["requests"][place - 1]["after"] if place else record["original"]
    earlier = [known["accuracy"] for known in one["after"]["requests"][:place]]
    return {
        "request": one,
        "before": before["requests"][place]["accuracy"]
        if place < len(before["requests"])
        else None,
        "now": one["after"]["requests"][place]["accuracy"],
        "earlier": fmean(earlier) if earlier else None,
        "worst": max(earlier, default=None),
        "kept": {role: of["accuracy"] for role, of in one["after"]["kept"].items()},
    }
