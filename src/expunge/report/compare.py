"""The page of ``expunge compare``: what every run traded, and which differences stand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from markupsafe import Markup

from expunge.report import words
from expunge.report.beside import side_by_side
from expunge.report.html import clean, page
from expunge.report.svg import Range, Spot, Words, figure, plane

Group = Mapping[str, Any]

MARGIN = 0.08
"""Room beyond the outermost marks of a plot, as a share of what they span."""
SHOWN = ("recovery", "distance", "cost")
"""Numbers of attacks, by what their gates look at."""
SIGNS = {"low": "low is better", "high": "high is better", "target": "neither end is better"}
TONES = {"original": "original", "reference": "reference"}
STANDING: Mapping[bool | None, words.Plain] = {
    True: words.Plain("stands", "significant after the adjustment", "good", "●"),
    False: words.Plain("may be chance", "not significant after the adjustment", "open", "○"),
    None: words.Plain("not tested", "the values of its rows were not kept", "warn", "–"),
}
BY_DEFINITION: Mapping[str, tuple[float, float]] = {"original": (0.0, 1.0)}
"""Where an audit puts the original: nothing out of reach, all of its use kept."""
NEVER_KNEW = 1.0
"""Where an audit puts a model that never knew; of its utility an audit says nothing."""


def render_comparison(result: Mapping[str, Any]) -> str:
    """The page of a comparison.

    Args:
        result: The content of ``comparison.json``: ``groups`` with ``title``, ``forgetting``,
            ``utility``, ``better``, ``runs``, ``seeds``, ``differences``, ``against``, ``notes``.

    Returns:
        One HTML page that stands for itself.
    """
    told = clean(result)
    return page(
        "compare",
        groups=[
            {
                **group,
                **side_by_side(group),
                "plot": trade_off(group),
                "others": _others(group),
                "differences": [_difference(one) for one in group["differences"]],
                "tested": sum(one["holm"] is not None for one in group["differences"]),
                "standing": sum(bool(one["significant"]) for one in group["differences"]),
            }
            for group in told["groups"]
        ],
        unmatched=told["unmatched"],
        verdict=words.verdict,
        written=written,
        bounds=bounds,
    )


def trade_off(group: Group) -> Markup | None:
    """Forgetting against utility, None where either is not measurable in every run."""
    spots = [*_anchors(group), *_runs(group), *_seeds(group)]
    if not spots:
        return None
    names = {axis: group[axis] for axis in ("forgetting", "utility")}
    better = {axis: group["better"].get(name, "high") for axis, name in names.items()}
    told = Words(
        title="What was forgotten, and what was kept",
        description="; ".join(_said(spot) for spot in spots) + ".",
        x=f"{names['forgetting']} ({SIGNS[better['forgetting']]}): more forgotten to the right",
        y=f"{names['utility']} ({SIGNS[better['utility']]})",
    )
    ends = (0.0, NEVER_KNEW) if group["kind"] == "audit" else ()
    x = _span([*ends, *chain.from_iterable((s.x, *(s.x_interval or ())) for s in spots)])
    y = _span(chain.from_iterable((s.y, *(s.y_interval or ())) for s in spots))
    if better["forgetting"] == "low":
        x = x[::-1]
    if better["utility"] == "low":
        y = y[::-1]
    return figure(lambda width: plane(spots, told, x, y, width), told)


def written(value: float | None) -> str:
    """A number as the tables show it.

    Example:
        >>> written(0.5), written(2e-7), written(None)
        ('0.500', '2.0e-07', '–')
    """
    if value is None:
        return "–"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}"


def bounds(interval: Sequence[float] | None) -> str:
    """An interval as the tables show it; empty where there is none."""
    return f"{written(interval[0])} to {written(interval[1])}" if interval else ""


def _anchors(group: Group) -> Iterable[Spot]:
    """The original of audits, which no run has to stand for."""
    if group["kind"] == "audit" and all(run["role"] != "original" for run in group["runs"]):
        x, y = BY_DEFINITION["original"]
        yield Spot(label="original", x=x, y=y, tone="original")


def _runs(group: Group) -> Iterable[Spot]:
    in_groups = {name for seeds in group["seeds"] for name in seeds["runs"]}
    for run in group["runs"]:
        places = [run["numbers"].get(group[axis]) for axis in ("forgetting", "utility")]
        for spot in _spot(run["name"], places, TONES.get(run["role"], "model")):
            small = replace(spot, x_interval=None, y_interval=None, is_named=False)
            yield small if run["name"] in in_groups else spot


def _seeds(group: Group) -> Iterable[Spot]:
    for seeds in group["seeds"]:
        places = [seeds["numbers"].get(group[axis]) for axis in ("forgetting", "utility")]
        yield from _spot(f"{seeds['name']} (mean)", places, "contrast")


def _spot(label: str, places: Sequence[Mapping[str, Any] | None], tone: str) -> Iterable[Spot]:
    x, y = places
    if x is None or y is None or x["value"] is None or y["value"] is None:
        return
    yield Spot(
        label=label,
        x=x["value"],
        y=y["value"],
        x_interval=x["interval"] and tuple(x["interval"]),
        y_interval=y["interval"] and tuple(y["interval"]),
        tone=tone,
    )


def _said(spot: Spot) -> str:
    x = f" ({bounds(spot.x_interval)})" if spot.x_interval else ""
    y = f" ({bounds(spot.y_interval)})" if spot.y_interval else ""
    return f"{spot.label}: forgetting {written(spot.x)}{x}, utility {written(spot.y)}{y}"


def _span(values: Iterable[float]) -> Range:
    """Ends of an axis with some room; never of no length."""
    known = list(values)
    low, high = min(known), max(known)
    room = MARGIN * (high - low) or 0.5 * abs(high) or 0.5
    return low - room, high + room


def _others(group: Group) -> list[str]:
    """The numbers beside forgetting and utility, but what the table of attacks shows already."""
    shown = (group["forgetting"], group["utility"])
    hidden = SHOWN if group["kind"] == "audit" else ()
    return [
        name
        for name in group["metrics"]
        if name not in shown and name.partition(".")[0] not in hidden
    ]


def _difference(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """A difference with the words for whether it stands."""
    return {**one, "plain": STANDING[one["significant"]]}
