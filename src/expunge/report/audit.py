"""The report of one audit, from the value of ``audit.json``.

What was not measured is named in one sentence; there is never an empty table or plot. Answers are
masked unless the value says ``"redact": false``, since a report travels further than the model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from expunge.core.registry import attacks, metrics
from expunge.report import words
from expunge.report.html import clean, page
from expunge.report.redact import Piece, masked, shown
from expunge.report.svg import Bar, Sample, Series, Words, bars, both, ecdf, lines, strips

Record = Mapping[str, Any]

CURVES = (("original", "original", "original"), ("control", "control", "reference"))
"""Curves drawn below the audited model's: key, name, tone."""
STRIPPED = ("probability", "extraction-strength", "exact-memorisation")
"""Metrics whose values per row are worth a plot, the best first."""
INTERNAL = ("read-out", "compression")
"""Families that look inside the model."""
MEMBERSHIP = "privacy"
NOT_MEASURED: Record = dict.fromkeys(("model", "original", "reference"))


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackLine:
    """One attack as the report shows it."""

    name: str
    summary: str
    record: Record
    outcome: words.Plain

    @property
    def is_open(self) -> bool:
        """Whether it could have decided, with more rows or a clearer result."""
        return bool(self.record["outcome"] == "inconclusive")

    @property
    def bar(self) -> Bar:
        """Its recovery as a bar."""
        value, bounds = self.record["recovery"], self.record["interval"]
        told = f"{words.number(value)} " if value is not None else ""
        return Bar(
            label=self.name,
            value=value,
            interval=bounds and (bounds[0], bounds[1]),
            threshold=self.record["gate"],
            tone=self.outcome.tone,
            detail=f"{told}{self.outcome.sign} {self.outcome.name}",
        )


def render_audit(data: Record) -> str:
    """The page of one audit.

    Args:
        data: A value of ``audit.json`` (format ``unlearning-audit/1``).

    Returns:
        One HTML page that stands for itself.
    """
    told = clean(data)
    tested = attack_lines(told)
    return page(
        "audit",
        data=told,
        verdict=words.verdict(told["verdict"]),
        attacks=tested,
        families=_families(told),
        undecided=[one for one in tested if one.is_open],
        models=_models(told),
        metrics=[(id, _summary(metrics, id), values) for id, values in told["metrics"].items()],
        strip=_strip(told),
        truth_ratio=_truth_ratio(told),
        recovery=recovery_chart(tested),
        internal=[one for one in tested if one.record["family"] in INTERNAL and _parts(one)],
        has_membership=any(one.record["family"] == MEMBERSHIP for one in tested),
        kept=_kept(told),
        curves=[(one, curve_chart(one)) for one in tested if one.record["curve"]],
        examples=[(example, _answers(told, example)) for example in told["examples"]],
        is_redacted=_is_redacted(told),
        outcomes=words.OUTCOMES,
        controls=words.CONTROLS,
        listing=words.listing,
    )


def attack_lines(data: Record) -> list[AttackLine]:
    """The attacks of a (cleaned) record."""
    return [
        AttackLine(
            name=name,
            summary=_summary(attacks, name.removesuffix("-past-runtime")),
            record=record,
            outcome=words.outcome(record["outcome"]),
        )
        for name, record in data["attacks"].items()
    ]


def _summary(registry: Any, id: str) -> str:
    """What a component does in one sentence; empty for one that is not installed here."""
    return str(registry.card(id).summary) if id in registry.ids() else ""


def _families(data: Record) -> list[tuple[str, str, words.Plain]]:
    return [
        (family, words.FAMILIES.get(family, ""), words.outcome(told))
        for family, told in data["families"].items()
    ]


def _models(data: Record) -> list[tuple[str, Record | None]]:
    names = {"model": "This model", "original": "The original", "reference": "The reference"}
    return [(name, data["models"][key]) for key, name in names.items()]


def _parts(one: AttackLine) -> Record:
    parts: Record = one.record["parts"]["model"]
    return parts


def _samples(record: Record) -> list[Sample]:
    """Values per row of one metric, of every model it was measured on."""
    names = {"original": "original", "model": "this model", "reference": "reference"}
    return [
        Sample(label=label, values=list(value["per_row"].values()), tone=who)
        for who, label in names.items()
        if (value := record[who]) and value["per_row"]
    ]


def _strip(data: Record) -> Markup | None:
    """Every row's value of the first metric that has some."""
    found = {name: _samples(data["metrics"].get(name) or NOT_MEASURED) for name in STRIPPED}
    name = next((name for name, samples in found.items() if samples), None)
    if name is None:
        return None
    told = Words(
        title=f"{name} of every forget row",
        description=_means(found[name]),
        x=f"{name} (a point is a row, the tick the mean)",
    )
    return both(lambda width: strips(found[name], told, width))


def _truth_ratio(data: Record) -> Markup | None:
    samples = _samples(data["metrics"].get("truth-ratio") or NOT_MEASURED)
    if not samples:
        return None
    told = Words(
        title="Distribution of the truth ratio over the forget rows",
        description=_means(samples),
        x="truth ratio (1: truth and near misses look alike)",
        y="share of rows up to there",
    )
    return both(lambda width: ecdf(samples, told, width))


def _means(samples: Iterable[Sample]) -> str:
    told = [
        f"{one.label}: mean {sum(one.values) / len(one.values):.2f} over {len(one.values)} rows"
        for one in samples
    ]
    return "; ".join(told) + "."


def recovery_chart(tested: Sequence[AttackLine]) -> Markup | None:
    """Excess recovery of every attack, with intervals and gates; None without attacks."""
    if not tested:
        return None
    rows = [one.bar for one in tested]
    told = Words(
        title="Excess recovery of every attack",
        description="; ".join(f"{row.label}: {row.detail}" for row in rows) + ".",
        x="excess recovery (0: never knew, 1: the original)",
    )
    return both(lambda width: bars(rows, told, width))


def curve_chart(one: AttackLine) -> Markup:
    """Leak over the steps of an attack that trains."""
    curve = one.record["curve"]
    drawn = [*CURVES, ("model", "this model", "model")]
    series = [
        Series(label=name, points=list(zip(curve["steps"], curve[key], strict=True)), tone=tone)
        for key, name, tone in drawn
    ]
    ends = [f"{line.label} {line.points[-1][1]:.0%}" for line in series]
    told = Words(
        title=f"What comes back during {one.name}",
        description=f"After {curve['steps'][-1]} steps: {words.listing(ends)}.",
        x="steps of fine-tuning",
        y="forgotten facts answered",
    )
    return both(lambda width: lines(series, told, curve["steps"], width))


def _kept(data: Record) -> Markup | None:
    """What the model still does, each part with the original's level as a tick."""
    utility = data["utility"]
    if utility is None:
        return None
    names = {"retain": "retain rows", "neighbour": "neighbour rows", "general": "general rows"}
    rows = [
        Bar(
            label=name,
            value=pair["model"],
            threshold=pair["original"],
            detail=f"{pair['model']:.2f} of {pair['original']:.2f}",
        )
        for key, name in names.items()
        if (pair := utility[key])
    ]
    if not rows:
        return None
    told = Words(
        title="What the model still does",
        description="; ".join(f"{row.label}: {row.detail}" for row in rows) + ".",
        x=f"{utility['measure']} (tick: the original)",
    )
    return both(lambda width: bars(rows, told, width))


def _is_redacted(data: Record) -> bool:
    return bool(data.get("redact", True))


def _answers(data: Record, example: Record) -> list[tuple[str, list[Piece]]]:
    """The true answer and what each model said, masked unless the record says otherwise."""
    names = {"answer": "true answer", "original": "original", "model": "this model"}
    names["reference"] = "reference"
    prompt, answer = example["prompt"], example["answer"]
    return [
        (
            name,
            masked(said, prompt=prompt, answer=answer) if _is_redacted(data) else shown(said),
        )
        for key, name in names.items()
        if (said := example[key]) is not None
    ]
