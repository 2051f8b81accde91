"""What the model still does, and what it traded for forgetting."""

from collections.abc import Iterable

from markupsafe import Markup

from expunge.report import words
from expunge.report.audit.attacks import Record
from expunge.report.svg import Guide, Level, Placed, Spot, Words, figure, levels, plane

PARTS = {"retain": "retain rows", "neighbour": "neighbour rows", "general": "general rows"}
SCORES = (0.25, 0.5, 0.75, 0.95)
"""Erasure scores whose lines are drawn."""
ENDS = (-0.02, 1.06)
APART = "Lines: 95% intervals. Of several strata of neighbours the worst counts in U."
TOGETHER = (
    "Line: 95% interval of the whole. The record keeps no intervals of the parts, and of several "
    "strata of neighbours the worst alone."
)


def kept(data: Record) -> Markup | None:
    """What the model still does as a whole and in parts, beside the original."""
    utility = data["utility"]
    if utility is None:
        return None
    rows = [_whole(utility), *_parts(utility)]
    told = Words(
        title="What the model still does",
        description=". ".join(row.told for row in rows) + ".",
        x=f"{utility['measure']}, a share (U: of the original's)",
        note=APART if utility.get("strata") else TOGETHER,
    )
    return figure(lambda width: levels(rows, told, width), told)


def _whole(utility: Record) -> Level:
    low, high = utility["interval"]
    return Level(
        label="the whole, U",
        marks=[
            Placed(label="original", value=1.0, tone="original"),
            Placed(label="this model", value=utility["value"], interval=(low, high)),
        ],
        detail=f"{utility['value']:.2f}",
    )


def _parts(utility: Record) -> Iterable[Level]:
    """Each part, and of a part with several strata each of these."""
    worst = worst_part({"utility": utility})
    for key, name in PARTS.items():
        if (pair := utility[key]) is None:
            continue
        strata = {
            f"{name}, {stratum}" if stratum else name: one
            for whole, one in utility.get("strata", {}).items()
            for part, _, stratum in [whole.partition("/")]
            if part == key
        }
        for label, one in (strata or {name: pair}).items():
            is_least = name == worst and one["model"] == pair["model"]
            yield Level(
                label=label,
                marks=[
                    Placed(label="original", value=one["original"], tone="original"),
                    Placed(label="this model", value=one["model"], interval=one.get("interval")),
                ],
                detail=f"{one['model']:.2f} of {one['original']:.2f}"
                + (" ◂ least" if is_least else ""),
            )


def worst_part(data: Record) -> str | None:
    """The part of which the least was kept; None for a single part, or where none lost any."""
    utility = data["utility"] or {}
    ratios = {
        name: pair["model"] / pair["original"]
        for key, name in PARTS.items()
        if (pair := utility.get(key)) and pair["original"] > 0
    }
    if len(ratios) < 2 or min(ratios.values()) >= 1:
        return None
    return min(ratios, key=lambda name: ratios[name])


def scatter(data: Record) -> Markup | None:
    """Utility against forgetting, with the original and what never knew as anchors."""
    utility, forgotten = data["utility"], forgetting(data)
    if utility is None or forgotten is None:
        return None
    x, bounds = forgotten
    low, high = utility["interval"]
    spots = [Spot(label="original", x=0.0, y=1.0, tone="original")]
    if data["breadth"] is not None:
        breadth = "mean over families"
        spots.append(Spot(label=breadth, x=data["breadth"], y=utility["value"], is_named=False))
    spots.append(Spot(label="this model", x=x, y=utility["value"], x_interval=bounds,
                      y_interval=(low, high)))  # fmt: skip
    told = Words(
        title="What was forgotten, and what was kept",
        description=f"original: forgetting 0, utility 1; this model: forgetting {x:.2f}"
        + (f" ({words.interval(bounds)})" if bounds else "")
        + f", utility {utility['value']:.2f} ({low:.2f} to {high:.2f}).",
        x="forgetting, the least of all attacks (1: never knew)",
        y="utility, relative to the original",
        note="Lines through the square: 95% intervals. Thin curves join places of equal erasure "
        "score. The small square is the mean over families. The original lies at 0 and 1 by "
        "definition; a reference that never knew lies on the upright line, and of its utility an "
        "audit says nothing.",
    )
    guides = [*map(_equal, SCORES), Guide(label="never knew", points=[(1.0, 0.08), (1.0, 1.06)])]
    return figure(lambda width: plane(spots, told, ENDS, ENDS, width, guides=guides), told)


def _equal(score: float) -> Guide:
    """Where forgetting times utility is the same, from the right; its name where it leaves."""
    places = [score + (1 - score) * at / 24 for at in range(25)]
    return Guide(label=f"{score:g}", points=[(x, score / x) for x in places[::-1]])


def forgetting(data: Record) -> tuple[float, tuple[float, float] | None] | None:
    """1 - the largest recovery of what decides, with an interval; None where nothing can tell.

    The interval goes from the largest upper to the largest lower bound, so it is rather too wide.
    """
    telling = [
        one
        for one in data["attacks"].values()
        if one["decides"] and one["statistic"] == "recovery" and one["recovery"] is not None
    ]
    if not telling:
        return None
    value = 1 - max(one["recovery"] for one in telling)
    bounds = [one["interval"] for one in telling]
    if not all(bounds):
        return value, None
    return value, (1 - max(high for _, high in bounds), 1 - max(low for low, _ in bounds))
