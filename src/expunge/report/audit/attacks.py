"""The attacks of an audit as lines of its tables and bars of its charts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from expunge.core.registry import attacks
from expunge.report import words
from expunge.report.bounds import wilson
from expunge.report.svg import Bar, Level, Placed, Words, bars, figure, levels

Record = Mapping[str, Any]

PAST = "-past-runtime"
"""What the second run of an attack is called, past the run-time part of the model."""


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
    def statistic(self) -> str:
        """What its gate looks at: ``recovery``, ``difference`` or ``cost``."""
        return str(self.record["statistic"])

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


def attack_lines(data: Record) -> list[AttackLine]:
    """The attacks of a (cleaned) record."""
    return [
        AttackLine(
            name=name,
            summary=summary_of(attacks, name.removesuffix(PAST)),
            record=record,
            outcome=words.outcome(record["outcome"]),
        )
        for name, record in data["attacks"].items()
    ]


def summary_of(registry: Any, id: str) -> str:
    """What a component does in one sentence; empty for one that is not installed here."""
    return str(registry.card(id).summary) if id in registry.ids() else ""


def in_families(tested: Iterable[AttackLine], *names: str) -> list[AttackLine]:
    """The attacks of some families."""
    return [one for one in tested if one.record["family"] in names]


def by_family(tested: Sequence[AttackLine]) -> list[tuple[str, list[AttackLine]]]:
    """Attacks under their families: those we have words for first, in the order of the words."""
    found = dict.fromkeys(one.record["family"] for one in tested)
    order = [*(name for name in words.FAMILIES if name in found), *found]
    return [(name, in_families(tested, name)) for name in dict.fromkeys(order)]


def families(data: Record) -> list[tuple[str, str, words.Plain]]:
    """Each family, what it tries, and its outcome; one without an attack was not run."""
    run = {attack["family"] for attack in data["attacks"].values() if attack["decides"]}
    return [
        (
            family,
            words.FAMILIES.get(family, ""),
            words.outcome(told) if family in run else words.NOT_RUN,
        )
        for family, told in data["families"].items()
    ]


def recovery_chart(
    tested: Sequence[AttackLine],
    unit: str = "fact",
    title: str = "Excess recovery of every attack",
) -> Markup | None:
    """Excess recovery of attacks that recover, by family; None where none does.

    Args:
        tested: Attacks; those whose gate looks at something else are left out.
        unit: What the intervals are drawn over.
        title: Of the chart.
    """
    grouped = by_family([one for one in tested if one.statistic == "recovery"])
    if not grouped:
        return None
    rows = [
        replace(one.bar, heading="" if rank else _heading(family))
        for family, members in grouped
        for rank, one in enumerate(members)
    ]
    told = Words(
        title=title,
        description="; ".join(map(_said, rows)) + ".",
        x="excess recovery (0: never knew, 1: the original)",
        note=f"Line: 95% interval over {unit}s. Dashed tick: the gate. Without a bar, the attack "
        "could not tell the original from the control.",
    )
    return figure(lambda width: bars(rows, told, width), told)


def _heading(family: str) -> str:
    meaning = words.FAMILIES.get(family)
    return f"{family}: {meaning}" if meaning else family


def _said(row: Bar) -> str:
    bounds = f" ({words.interval(row.interval)})" if row.interval else ""
    return f"{row.label}: {row.detail}{bounds}"


def cost_chart(tested: Sequence[AttackLine]) -> Markup | None:
    """What attacks on the process cost, beside the same request without them."""
    rows = [level for one in tested if (level := _cost(one))]
    if not rows:
        return None
    told = Words(
        title="Cost of attacks on the process",
        description=". ".join(row.told for row in rows) + ".",
        x="share of bystanders' questions no longer answered",
        note="Lines: 95% Wilson intervals over rows. Shaded, between dashed edges: what the gate "
        "lets pass.",
    )
    return figure(lambda width: levels(rows, told, width), told)


def _cost(one: AttackLine) -> Level | None:
    leak, gate = one.record["leak"], one.record["gate"]
    clean, damage = leak["control"], leak["model"]
    if clean is None or damage is None:
        return None
    n = one.record["n"]
    marks = [
        Placed(label="the request as it is", value=clean, interval=wilson(clean, n),
               tone="reference"),
        Placed(label="as the attacker words it", value=damage, interval=wilson(damage, n)),
    ]  # fmt: skip
    detail = f"{words.number(one.record['recovery'])} {one.outcome.sign} {one.outcome.name}"
    band = (0.0, min(1.0, clean + gate))
    return Level(label=one.name, marks=marks, band=band, detail=detail)
