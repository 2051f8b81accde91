"""What attacks that look inside the model found: at each block, and in further numbers."""

import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from expunge.report import words
from expunge.report.audit.attacks import AttackLine, Record
from expunge.report.audit.scope import units
from expunge.report.bounds import wilson
from expunge.report.svg import Frame, Series, Words, lines, small

NAMES = {"original": "original", "control": "control", "model": "model"}
"""Whose values are drawn, the audited model's on top."""
TONES = {"original": "original", "control": "reference", "model": "model"}
BLOCK = re.compile("[0-9]{1,6}")
FOLDS = "folds"
"""Number of folds, where rows share the value of their fold."""


def layer_charts(data: Record, tested: Sequence[AttackLine]) -> list[Markup]:
    """What is left at each block, one chart an attack."""
    return [
        _layers(data, one)
        for one in tested
        if one.record["layers"] and _points(one.record["layers"]["model"])
    ]


def _layers(data: Record, one: AttackLine) -> Markup:
    read = one.record["layers"]
    series = [
        Series(
            label=label,
            points=points,
            tone=TONES[who],
            bounds=[bound for _, at in points if (bound := wilson(at, _n(data, one, who)))] or None,
        )
        for who, label in NAMES.items()
        if (points := _points(read[who]))
    ]
    ticks = sorted({at for each in series for at, _ in each.points})
    told = Words(
        title=f"{one.name}: what is left at each block",
        description="; ".join(
            f"{each.label}: " + ", ".join(f"block {at:g} {left:.2f}" for at, left in each.points)
            for each in series
        )
        + ".",
        x="block (0: the first after the embedding)",
        y="mean leak read there",
        note="Lines: 95% Wilson intervals of the means, over "
        + ("folds of rows." if FOLDS in one.record["parts"]["model"]
           else f"{data['request']['unit']}s."),
    )  # fmt: skip
    frame = Frame(x=ticks if len(ticks) > 1 else [ticks[0] - 0.5, ticks[0], ticks[0] + 0.5])
    return small(lambda width: lines(series, told, frame, width), told)


def _points(read: Mapping[str, float]) -> list[tuple[float, float]]:
    """Block and what was read there; what is no number of a block is left out."""
    return sorted((float(block), value) for block, value in read.items() if BLOCK.fullmatch(block))


def _n(data: Record, one: AttackLine, who: str) -> int:
    folds = one.record["parts"]["model"].get(FOLDS)
    return int(folds) if folds else units(data, one.record["per_row"][who])


def numbers_of(tested: Sequence[AttackLine]) -> list[tuple[str, str, str, str]]:
    """Further numbers: attack, name, of this model, of the control."""
    return [
        (
            one.name,
            name.replace("_", " "),
            words.number(value, 3),
            words.number(one.record["parts"]["control"].get(name), 3),
        )
        for one in tested
        for name, value in one.record["parts"]["model"].items()
    ]
