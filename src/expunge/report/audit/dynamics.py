"""Curves: what comes back over the steps of fine-tuning, and over the number of answers drawn."""

import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from expunge.report import words
from expunge.report.audit.attacks import AttackLine, Record
from expunge.report.audit.scope import units
from expunge.report.bounds import wilson
from expunge.report.svg import Frame, Series, Words, figure, lines

NAMES = {"original": "original", "control": "control", "model": "this model"}
"""Whose values are drawn, the audited model's on top."""
TONES = {"original": "original", "control": "reference", "model": "model"}
BUDGET = re.compile(r"leak@(\d{1,9})")

Points = Sequence[tuple[float, float]]


def relearning_charts(
    data: Record, tested: Sequence[AttackLine]
) -> list[tuple[AttackLine, Markup]]:
    """Leak over the steps of every attack that trains."""
    return [(one, _relearning(data, one)) for one in tested if _has_curve(one)]


def _has_curve(one: AttackLine) -> bool:
    curve = one.record["curve"]
    return bool(curve and curve["steps"])


def _relearning(data: Record, one: AttackLine) -> Markup:
    curve = one.record["curve"]
    found = {who: list(zip(curve["steps"], curve[who], strict=True)) for who in NAMES}
    series = _series(data, one, found)
    ends = [f"{line.label} {_at_end(line)}" for line in series]
    told = Words(
        title=f"What comes back during {one.name}",
        description=f"After {curve['steps'][-1]} steps: {words.listing(ends)}.",
        x="steps of fine-tuning",
        y="forgotten facts answered",
        note=_note(data, "each mean"),
    )
    steps = curve["steps"]
    frame = Frame(x=steps if len(set(steps)) > 1 else [steps[0], steps[0] + 1])
    return figure(lambda width: lines(series, told, frame, width), told)


def budget_charts(data: Record, tested: Sequence[AttackLine]) -> list[Markup]:
    """Leak over the number of answers drawn, of every attack that kept it."""
    return [chart for one in tested if (chart := _budget(data, one))]


def _budget(data: Record, one: AttackLine) -> Markup | None:
    parts = one.record["parts"]
    found = {who: _leaks_at(parts.get(who, {})) for who in NAMES}
    if len(found["model"]) < 2:
        return None
    series = _series(data, one, {who: points for who, points in found.items() if points})
    ends = [f"{line.label} {_at_end(line)}" for line in series]
    most = found["model"][-1][0]
    missing = "" if found["original"] else " The record keeps no such curve of the original."
    told = Words(
        title=f"leak@B of {one.name}",
        description=f"With {most:g} answers: {words.listing(ends)}.",
        x="B, answers drawn a fact (log)",
        y="facts given away by one of them",
        note=_note(data, "each mean") + missing,
    )
    ticks = sorted({at for line in series for at, _ in line.points})
    frame = Frame(x=ticks, x_log=True)
    return figure(lambda width: lines(series, told, frame, width), told)


def _leaks_at(parts: Mapping[str, float]) -> list[tuple[float, float]]:
    found = [(match, value) for name, value in parts.items() if (match := BUDGET.fullmatch(name))]
    return sorted((float(match[1]), value) for match, value in found if int(match[1]))


def _series(data: Record, one: AttackLine, found: Mapping[str, Points]) -> list[Series]:
    counts = {who: units(data, one.record["per_row"][who]) or one.record["n"] for who in found}
    return [
        Series(
            label=NAMES[who],
            points=points,
            tone=TONES[who],
            bounds=[bound for _, mean in points if (bound := wilson(mean, counts[who]))] or None,
        )
        for who, points in found.items()
    ]


def _at_end(line: Series) -> str:
    bounds = f" ({words.interval(line.bounds[-1])})" if line.bounds else ""
    return f"{line.points[-1][1]:.0%}{bounds}"


def _note(data: Record, what: str) -> str:
    return f"Lines: 95% Wilson intervals of {what} over {data['request']['unit']}s."
