"""Membership: AUC beside the control's gate, other scores, and the curve behind the AUC."""

from collections.abc import Mapping, Sequence
from math import ceil, log10
from statistics import fmean

from markupsafe import Markup

from expunge.report.audit.attacks import AttackLine, Record
from expunge.report.audit.scope import units
from expunge.report.bounds import Range, area, placed, wilson
from expunge.report.svg import Frame, Level, Placed, Series, Words, figure, levels, lines

CHANCE = 0.5
NAMES = {"original": "original", "control": "control", "model": "this model"}
"""Whose values are drawn, the audited model's on top."""
TONES = {"original": "original", "control": "reference", "model": "model"}
HOLDOUT = "holdout"
"""Placements of hold-out rows, beside those of the forget rows."""


def membership_chart(data: Record, tested: Sequence[AttackLine]) -> Markup | None:
    """AUC of every model that was tested, before the band its gate leaves around the control."""
    rows = [level for one in tested if (level := _auc(data, one))]
    if not rows:
        return None
    told = Words(
        title="AUC of model and control with gate band",
        description=". ".join(map(_said, rows)) + ".",
        x="AUC against rows never seen (0.5: no difference)",
        note="Lines: 95% intervals from the placements of both sides (DeLong). Shaded, between "
        "dashed edges: the control's AUC and what its gate allows around it. An AUC far below it "
        "marks the rows as surely as one far above. This is no recovery: do not read it against "
        "the bars of section 5.",
    )
    return figure(lambda width: levels(rows, told, width), told)


def _auc(data: Record, one: AttackLine) -> Level | None:
    record = one.record
    control = record["leak"]["control"]
    middle = CHANCE if control is None else control
    marks = [
        Placed(label=label, value=value, tone=TONES[who], interval=_interval(data, record, who))
        for who, label in NAMES.items()
        if (value := record["leak"][who]) is not None
        and (who != "control" or record["per_row"]["control"])
    ]
    if not marks:
        return None
    band = (max(0.0, middle - record["gate"]), min(1.0, middle + record["gate"]))
    detail = f"{one.outcome.sign} {one.outcome.name}"
    return Level(label=one.name, marks=marks, band=band, detail=detail)


def _interval(data: Record, record: Record, who: str) -> Range | None:
    others = list(record["beside"][who].get(HOLDOUT, {}).values())
    by = data["request"]["entities"] if data["request"]["unit"] == "subject" else {}
    return placed(record["per_row"][who], others, by)


def _said(row: Level) -> str:
    low, high = row.band or (0.0, 1.0)
    return f"{row.told}; gate {low:.2f} to {high:.2f}"


def score_chart(one: AttackLine) -> Markup | None:
    """AUC of the other membership scores, of which one alone decides; None without any."""
    parts = one.record["parts"]
    names = [name for name in parts["model"] if name.startswith("auc_")]
    if len(names) < 2:
        return None
    rows = [
        Level(
            label=name.removeprefix("auc_").replace("_", " "),
            marks=[
                Placed(
                    label=NAMES[who],
                    value=parts[who][name],
                    tone=TONES[who],
                    interval=area(parts[who][name], *_counts(parts[who])),
                )
                for who in ("original", "control", "model")
                if name in parts[who]
            ],
        )
        for name in names
    ]
    told = Words(
        title=f"AUC of other scores of {one.name}",
        description=". ".join(row.told for row in rows) + ".",
        x="AUC against rows never seen (0.5: no difference)",
        note="Reported only: the best of several scores would be drawn from noise. Lines: 95% "
        "intervals from the numbers of rows (Hanley and McNeil).",
    )
    return figure(lambda width: levels(rows, told, width), told)


def _counts(parts: Mapping[str, float]) -> tuple[float, float]:
    return parts.get("members", 0.0), parts.get("nonmembers", 0.0)


def roc(data: Record, one: AttackLine) -> Markup | None:
    """The curve behind the AUC, on two logarithmic axes, from the placements of the rows.

    A row placed above a share p of the hold-out rows is found from a false positive rate of 1 - p
    on.
    """
    record = one.record
    counts = {who: len(record["beside"][who].get(HOLDOUT, {})) for who in NAMES}
    drawn = [who for who in NAMES if record["per_row"][who] and counts[who] > 1]
    if "model" not in drawn:
        return None
    members = len(record["per_row"]["model"])
    x, y = _rates_shown(counts["model"]), _rates_shown(members)
    series = [Series(label="chance", points=_chance(max(x[0], y[0])), tone="plain")]
    for who in drawn:
        points = _roc(record["per_row"][who], x[0], y[0])
        n = units(data, record["per_row"][who])
        bounds = [_floored(wilson(rate, n), y[0]) for _, rate in points]
        is_banded = who != "original"
        series.append(Series(label=NAMES[who], points=points, tone=TONES[who],
                             bounds=bounds if is_banded else None))  # fmt: skip
    told = Words(
        title=f"Members found by {one.name} at each rate of false alarms",
        description="; ".join(_rates(record, who, drawn) for who in drawn) + ".",
        x="false positive rate, of hold-out rows (log)",
        y="true positive rate, of forget rows (log)",
        note=f"From the placements in the record; {counts['model']} hold-out rows show no rate "
        f"below {_percent(1 / counts['model'])}, and a rate of 0 is drawn at the edge. Bands of "
        "this model and the control: 95% Wilson intervals of the rate found; that of the other "
        "axis is left out.",
    )
    frame = Frame(
        x=x, y=y, x_log=True, y_log=True, is_marked=False, x_form=_percent, y_form=_percent
    )
    return figure(lambda width: lines(series, told, frame, width), told)


def _roc(placements: Mapping[str, float], left: float, floor_: float) -> list[tuple[float, float]]:
    """Steps of the curve: at each false positive rate the share of rows placed high enough."""
    rates = sorted(1 - one for one in placements.values())
    within = sum(rate <= left for rate in rates)
    found = [(left, max(floor_, within / len(rates)))]
    for rank, rate in enumerate(rates[within:], start=within + 1):
        found += [(rate, found[-1][1]), (rate, max(floor_, rank / len(rates)))]
    return [*found, (1.0, 1.0)]


def _chance(low: float) -> list[tuple[float, float]]:
    return [(low, low), (1.0, 1.0)]


def _floored(bounds: Range | None, low: float) -> Range:
    return (low, 1.0) if bounds is None else (max(low, bounds[0]), max(low, bounds[1]))


def _rates_shown(n: int) -> list[float]:
    """The least rate that n rows can show, then powers of ten up to 1."""
    least = 1 / max(2, n)
    first = ceil(log10(least) + 1e-9)
    return [least, *(10.0**power for power in range(first, 1) if 10.0**power > 1.8 * least)]


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"


def _rates(record: Record, who: str, drawn: Sequence[str]) -> str:
    rates = record["per_row"][who].values()
    low = fmean(1 - one <= 0.1 for one in rates)
    return f"{NAMES[who]}: {low:.0%} of the forget rows found at 10% false positives"
