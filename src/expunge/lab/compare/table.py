"""A comparison as tables: for the console, for Markdown and for spreadsheets."""

import csv as spreadsheet
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from expunge.lab.bench_table import UNMEASURED, written
from expunge.lab.compare.attacks import NAMES

ABREAST = 80
"""Characters of names side by side in one table of numbers."""

Group = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """One table: what it shows, its heads and its rows."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(group: Group) -> list[Table]:
    """The tables of one group of runs."""
    return [_headline(group), *_outcomes(group), *_numbers(group), *_differences(group)]


def counted(group: Group) -> str:
    """On what a group was measured, in a sentence."""
    rows = ", ".join(f"{count} {name}" for name, count in group["rows"].items())
    if group["kind"] == "change":
        return "By what the changes say of themselves; nothing was measured again."
    entities = f" of {group['entities']} entities" if group["entities"] else ""
    return f"Rows: {rows}{entities}."


def believed(group: Group) -> str:
    """How many differences are shown and how many stand, in a sentence."""
    shown = group["differences"]
    if not shown:
        return ""
    tested = [one for one in shown if one["holm"] is not None]
    stand = sum(bool(one["significant"]) for one in tested)
    return (
        f"{len(shown)} differences are shown, {len(tested)} of them with an interval; "
        f"{stand} stand at the 5% level after Holm's adjustment for {len(tested)}."
    )


def markdown(result: Mapping[str, Any]) -> str:
    """A comparison as a Markdown page."""
    blocks = ["# Runs side by side"]
    for group in result["groups"]:
        blocks += [f"## {group['title']}", counted(group)]
        for table in tables(group):
            blocks += [f"{table.title}:", _markdown(table)]
        blocks += [text for text in (believed(group), *map(_sentence, group["notes"])) if text]
    return "\n\n".join(blocks) + "\n"


def csv(result: Mapping[str, Any]) -> str:
    """A comparison as comma-separated values: a line for every number of every run."""
    text = StringIO()
    lines = spreadsheet.writer(text, lineterminator="\n")
    lines.writerow(("group", "run", "method", "seed", "role", "number", "value", "low", "high"))
    for group in result["groups"]:
        for run in group["runs"]:
            who = [group["title"], *(run[key] for key in ("name", "method", "seed", "role"))]
            for name, value, interval in _all_numbers(run):
                lines.writerow([*who, name, value, *(interval or ("", ""))])
        for one in group["differences"]:
            who = [group["title"], f"{one['run']} - {one['against']}", "", "", "difference"]
            bounds = one["interval"] or ("", "")
            lines.writerow([*who, one["number"], one["difference"], *bounds])
    return text.getvalue()


def _all_numbers(run: Mapping[str, Any]) -> Iterable[tuple[str, Any, Any]]:
    if run["verdict"] is not None:
        yield "verdict", run["verdict"], None
        yield "erasure score", run["erasure_score"], run["erasure_interval"]
    for name, number in run["numbers"].items():
        yield name, number["value"], number["interval"]


def _headline(group: Group) -> Table:
    """Forgetting, utility and verdict of every run, then of every group of seeds."""
    axes = [group["forgetting"], group["utility"]]
    heads = ["run", *(_head(group, axis, name) for axis, name in zip(AXES, axes, strict=True))]
    rows = [
        [run["name"], *(bounded(run["numbers"].get(axis)) for axis in axes)]
        for run in group["runs"]
    ]
    if group["kind"] == "audit":
        heads += ["verdict", "erasure score"]
        for row, run in zip(rows, group["runs"], strict=True):
            score = {"value": run["erasure_score"], "interval": run["erasure_interval"]}
            row += [run["verdict"], bounded(score)]
    for seeds in group["seeds"]:
        name = f"{seeds['name']}: mean of {len(seeds['runs'])} seeds"
        cells = [_over_seeds(seeds["numbers"].get(axis)) for axis in axes]
        rows.append([name, *cells, *[""] * (len(heads) - 3)])
    return Table("Forgetting and utility, 95% intervals in brackets", heads, rows)


def _outcomes(group: Group) -> Iterable[Table]:
    """Families and attacks of audits, with the outcome of each and what its gate looked at."""
    runs = group["runs"] if group["kind"] == "audit" else []
    heads = ["", *(run["name"] for run in runs)]
    families = dict.fromkeys(name for run in runs for name in run["families"])
    if families:
        rows = [[name, *(run["families"].get(name, UNMEASURED) for run in runs)]
                for name in families]  # fmt: skip
        yield Table("Families", heads, rows)
    attacks = dict.fromkeys(
        (name, of["statistic"]) for run in runs for name, of in run["attacks"].items()
    )
    if attacks:
        rows = [
            [_gate(name, statistic), *(_outcome(run["attacks"].get(name), statistic)
                                       for run in runs)]
            for name, statistic in attacks
        ]  # fmt: skip
        yield Table("Attacks, what their gates look at, 95% intervals in brackets", heads, rows)


def _gate(name: str, statistic: str) -> str:
    return name if statistic == "recovery" else f"{name} ({statistic})"


def _outcome(attack: Mapping[str, Any] | None, statistic: str) -> str:
    if attack is None or attack["statistic"] != statistic:
        return UNMEASURED
    value = {"value": attack["recovery"], "interval": attack["interval"]}
    only = "" if attack["decides"] else ", reported only"
    return f"{bounded(value)} {attack['outcome']}{only}"


AXES = ("forgetting", "utility")
ARROWS = {"low": " (low is better)", "high": " (high is better)", "target": ""}


def _head(group: Group, axis: str, name: str | None) -> str:
    if name is None:
        return f"{axis}: not measurable"
    said = axis if name == axis else f"{axis}: {name}"
    return said + ARROWS[group["better"].get(name, "target")]


def bounded(number: Mapping[str, Any] | None) -> str:
    """A number with its interval.

    Example:
        >>> bounded({"value": 0.5, "interval": [0.25, 0.75]}), bounded(None)
        ('0.500 [0.250, 0.750]', '–')
    """
    if number is None or number["value"] is None:
        return UNMEASURED
    value, bounds = written(number["value"]), number["interval"]
    return f"{value} [{written(bounds[0])}, {written(bounds[1])}]" if bounds else value


def _over_seeds(number: Mapping[str, Any] | None) -> str:
    if number is None or number["value"] is None:
        return UNMEASURED
    return f"{bounded(number)} ± {written(number['spread'])}"


def _numbers(group: Group) -> Iterable[Table]:
    """What else the runs share, a few numbers abreast."""
    shown = NAMES.values() if group["kind"] == "audit" else ()
    rest = [
        name
        for name in group["metrics"]
        if name not in (group["forgetting"], group["utility"])
        and name.partition(".")[0] not in shown
    ]
    for place, names in enumerate(_abreast(rest)):
        rows = [
            [run["name"], *(written(run["numbers"][name]["value"]) for name in names)]
            for run in group["runs"]
        ]
        title = "More of them" if place else "Other numbers that all of them have"
        yield Table(title, ["run", *names], rows)


def _abreast(names: Sequence[str]) -> list[list[str]]:
    """Names cut into lines that a console holds."""
    lines: list[list[str]] = []
    for name in names:
        if not lines or sum(map(len, lines[-1])) + len(name) > ABREAST:
            lines.append([])
        lines[-1].append(name)
    return lines


def _differences(group: Group) -> Iterable[Table]:
    if not group["differences"]:
        return
    heads = ["run", "number", "difference", "seeds", "p", "Holm", "stands"]
    rows = [
        [
            one["run"],
            one["number"],
            bounded({"value": one["difference"], "interval": one["interval"]}),
            "/".join(map(str, one["seeds"])),
            written(one["p"]),
            written(one["holm"]),
            {True: "yes", False: "no", None: one["note"] or UNMEASURED}[one["significant"]]
            + (f" ({one['note']})" if one["note"] and one["significant"] is not None else ""),
        ]
        for one in group["differences"]
    ]
    yield Table(f"Differences from {group['against']}, paired by entity", heads, rows)


def _markdown(table: Table) -> str:
    rows = [table.heads, ["---"] * len(table.heads), *table.rows]
    lines = (" | ".join(str(cell).replace("|", "\\|") for cell in row) for row in rows)
    return "\n".join(f"| {line} |" for line in lines)


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}{'' if note.endswith('.') else '.'}"
