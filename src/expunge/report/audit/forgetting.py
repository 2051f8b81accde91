"""What the metrics say of the rows to be forgotten: points of every row, and distributions."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, floor
from statistics import fmean

from markupsafe import Markup

from expunge.report import words
from expunge.report.audit.attacks import Record
from expunge.report.audit.scope import units
from expunge.report.bounds import margin
from expunge.report.svg import (
    Column,
    Sample,
    Words,
    columns,
    ecdf,
    figure,
    round_ticks,
    strips,
)

STRIPPED = ("probability", "extraction-strength", "exact-memorisation")
"""Metrics whose values per row are worth a plot, the best first."""
NAMES = {"original": "original", "reference": "reference", "model": "this model"}
"""Whose values are drawn, the audited model's on top."""
BANDS = (
    "Bands of this model and the reference: 95%, all places at once (Dvoretzky, Kiefer, Wolfowitz)."
)
RISK = "pii-risk"
BINS = 10
FAR = 1e6
"""Nats beyond which nothing is drawn."""
UNMEASURED: Record = dict.fromkeys(NAMES)


def samples_of(data: Record, metric: str) -> list[Sample]:
    """Values per row of one metric, of every model it was measured on."""
    record = data["metrics"].get(metric) or UNMEASURED
    found = []
    for who, label in NAMES.items():
        value = record[who]
        if value and value["per_row"]:
            bounds = value["interval"] and (value["interval"][0], value["interval"][1])
            rows = list(value["per_row"].values())
            found.append(Sample(label=label, values=rows, tone=who, interval=bounds))
    return found


def strip(data: Record) -> Markup | None:
    """Every row's value of the first metric that has some."""
    metric = next((name for name in STRIPPED if samples_of(data, name)), None)
    if metric is None:
        return None
    samples = samples_of(data, metric)
    unit = data["request"]["unit"]
    told = Words(
        title=f"{metric} of every forget row",
        description=_means(samples),
        x=f"{metric}, a share",
        note="A point is a row, the tall tick their mean, the line below it the mean's 95% "
        f"interval over {'subjects' if unit == 'subject' else 'the subjects of the request'}.",
    )
    return figure(lambda width: strips(samples, told, width), told)


def truth_ratios(data: Record) -> Markup | None:
    """How the truth ratio is distributed, with the distance to the reference."""
    value = (data["metrics"].get("forget-quality") or UNMEASURED)["model"]
    if not value or not value["per_row"] or not value["beside"].get("reference"):
        return _plain_ratios(data)
    original = (data["metrics"]["forget-quality"]["original"] or {}).get("per_row")
    rows = {"original": original, "reference": value["beside"]["reference"],
            "model": value["per_row"]}  # fmt: skip
    samples = [
        Sample(
            label=NAMES[who],
            values=list(of.values()),
            tone=who,
            margin=None if who == "original" else margin(units(data, of)),
        )
        for who, of in rows.items()
        if of
    ]
    told = Words(
        title="Distribution of the truth ratio over the forget rows",
        description=f"{_means(samples)} {_distance(value)}",
        x="log truth ratio in nats (0: cannot tell it)",
        y="share of rows up to there",
        note=f"{_distance(value)} {BANDS}",
    )
    ticks = _around([one for sample in samples for one in sample.values])
    return figure(lambda width: ecdf(samples, told, ticks, width), told)


def _plain_ratios(data: Record) -> Markup | None:
    samples = [
        replace(one, margin=None if one.tone == "original" else margin(len(one.values)))
        for one in samples_of(data, "truth-ratio")
    ]
    if not samples:
        return None
    told = Words(
        title="Distribution of the truth ratio over the forget rows",
        description=_means(samples),
        x="truth ratio (1: cannot tell truth and near misses)",
        y="share of rows up to there",
        note=f"The distance to a reference was not measured. {BANDS}",
    )
    return figure(lambda width: ecdf(samples, told, width=width), told)


def _distance(value: Record) -> str:
    """The Kolmogorov-Smirnov test of this model against the reference, in a sentence."""
    if value["mean"] is None or "d" not in value["parts"]:
        return "The distance to the reference was not measured."
    bounds = value["intervals"].get("d")
    within = f" (95% interval {words.interval(bounds)})" if bounds else ""
    return (
        "Greatest distance between this model's curve and the reference's: "
        f"D {value['parts']['d']:.2f}{within}, p {words.number(value['mean'], 3)} by the "
        "Kolmogorov-Smirnov test."
    )


def _around(values: Sequence[float]) -> tuple[float, ...]:
    """Round ticks that hold all values."""
    low, high = (min(FAR, max(-FAR, end)) for end in (min(values), max(values)))
    ticks = round_ticks((low, high if high > low else low + 1))
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return tuple(float(f"{rank * step:.12g}") for rank in range(first, last + 1))


def risks(data: Record) -> Markup | None:
    """Histogram of the risk index of personal data, where it was measured."""
    record = data["metrics"].get(RISK) or UNMEASURED
    value = record["original"] or record["model"]
    if not value or not value["per_row"]:
        return None
    rows = list(value["per_row"].values())
    top = max(1.0, *rows)
    places = [min(BINS - 1, int(BINS * max(0.0, one) / top)) for one in rows]
    found = [
        Column(low=top * at / BINS, high=top * (at + 1) / BINS, count=places.count(at))
        for at in range(BINS)
    ]
    told = Words(
        title="Risk index of the personal data in the rows",
        description=f"{len(rows)} rows, mean {fmean(rows):.2f}, largest {max(rows):.2f}.",
        x="risk index of a row (0: nothing personal)",
        y="rows",
        note="These are counts of all rows, so there is no interval.",
    )
    return figure(lambda width: columns(found, told, width), told)


def _means(samples: Sequence[Sample]) -> str:
    told = [f"{one.label}: mean {fmean(one.values):.2f} over {len(one.values)} rows"
            for one in samples]  # fmt: skip
    return "; ".join(told) + "."
