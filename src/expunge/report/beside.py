"""Audits side by side: verdicts, families, and every attack with its interval in each of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from expunge.report import words
from expunge.report.svg import Level, Placed, Words, figure, levels

Group = Mapping[str, Any]
Cells = Sequence[tuple[Mapping[str, Any] | None, words.Plain]]

KINDS: Mapping[str, tuple[str, str]] = {
    "recovery": ("Recovery", "beyond the control, as a share of what the original gives away"),
    "difference": ("Distance of AUC", "from the control's, on either side; this is no recovery"),
    "cost": ("Cost", "to bystanders, beyond that of the request as it is; this is no recovery"),
}
TONES = ("model", "contrast")
"""Tones of the first and the second run that is no anchor; more of them are not drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """Attacks whose gates look at one thing, as rows of a table."""

    title: str
    meaning: str
    rows: Sequence[tuple[str, Cells]]


def side_by_side(group: Group) -> dict[str, Any]:
    """What a page shows of audits beyond their numbers; nothing for other kinds of runs."""
    runs = group["runs"] if group["kind"] == "audit" else []
    names = _attacks(runs)
    return {
        "families": [
            (family, words.FAMILIES.get(family, ""), _families(runs, family))
            for family in dict.fromkeys(name for run in runs for name in run["families"])
        ],
        "kinds": [kind for kind in (*_deciding(runs, names), _reported(runs, names)) if kind.rows],
        "recoveries": _chart(group, runs, names),
    }


def _attacks(runs: Iterable[Group]) -> dict[str, Mapping[str, Any]]:
    """Each attack of any of the runs, as the first that has it holds it."""
    names: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        for name, attack in run["attacks"].items():
            names.setdefault(name, attack)
    return names


def _families(runs: Iterable[Group], family: str) -> list[words.Plain]:
    return [
        words.outcome(run["families"][family])
        if any(of["family"] == family and of["decides"] for of in run["attacks"].values())
        else words.NOT_RUN
        for run in runs
    ]


def _cells(runs: Iterable[Group], name: str, statistic: str) -> Cells:
    """An attack in every run; one that looked at something else there is not shown beside it."""
    found = [run["attacks"].get(name) for run in runs]
    same = [one if one and one["statistic"] == statistic else None for one in found]
    return [(one, words.outcome(one["outcome"]) if one else words.NOT_RUN) for one in same]


def _deciding(runs: Sequence[Group], names: Mapping[str, Mapping[str, Any]]) -> Iterable[Kind]:
    for statistic, (title, meaning) in KINDS.items():
        rows = [
            (name, _cells(runs, name, statistic))
            for name, of in names.items()
            if of["statistic"] == statistic and of["decides"]
        ]
        yield Kind(title=title, meaning=meaning, rows=rows)


def _reported(runs: Sequence[Group], names: Mapping[str, Mapping[str, Any]]) -> Kind:
    rows = [
        (f"{name} ({KINDS[of['statistic']][0].lower()})", _cells(runs, name, of["statistic"]))
        for name, of in names.items()
        if not of["decides"]
    ]
    return Kind(title="Reported only", meaning="these decide nothing", rows=rows)


def _tones(runs: Iterable[Group]) -> list[str] | None:
    """A tone for each run; None where there are more than there are shapes."""
    left = list(TONES)
    tones = [run["role"] if run["role"] != "run" else (left.pop(0) if left else "") for run in runs]
    return tones if all(tones) and len(set(tones)) == len(tones) else None


def _chart(
    group: Group, runs: Sequence[Group], names: Mapping[str, Mapping[str, Any]]
) -> Markup | None:
    """Recoveries of all runs, an attack a row; None for too many runs or nothing to show."""
    tones = _tones(runs)
    rows = [
        Level(label=name, marks=marks, band=(0.0, min(1.0, max(0.0, of["gate"]))))
        for name, of in names.items()
        if of["statistic"] == "recovery" and of["decides"] and tones
        if (marks := _marks(runs, name, tones))
    ]
    if not rows or len(runs) < 2:
        return None
    told = Words(
        title="Excess recovery of every attack, run by run",
        description=". ".join(row.told for row in rows) + ".",
        x="excess recovery (0: never knew, 1: the original)",
        note="Lines: 95% intervals of each audit. Shaded, between dashed edges: what the gate lets "
        "pass. Whether two marks differ is told by the paired differences below, not by whether "
        "their intervals overlap.",
    )
    return figure(lambda width: levels(rows, told, width), told)


def _marks(runs: Sequence[Group], name: str, tones: Sequence[str]) -> list[Placed]:
    return [
        Placed(
            label=run["name"],
            value=of["recovery"],
            tone=tone,
            interval=of["interval"] and (of["interval"][0], of["interval"][1]),
        )
        for run, tone in zip(runs, tones, strict=True)
        if (of := run["attacks"].get(name))
        and of["recovery"] is not None
        and of["statistic"] == "recovery"
    ]
