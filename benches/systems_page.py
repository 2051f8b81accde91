"""The results page of a table of systems and of the small studies beside it."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from expunge.core.registry import methods

Line = Mapping[str, Any]

PLAIN = "ft-retain"

TESTBED: Mapping[str, str] = {
    "steps": "steps", "cost": "cost", "verdict": "verdict", "erasure": "erasure",
    "forget-quality": "FQ p", "utility": "utility", "neighbour": "neighbour",
    "probability": "P", "retain-probability": "retain P", "xr-relearn-in": "XR relearn",
    "relearn-10": "P +10", "xr-quant4": "XR int4", "int4": "P int4",
}  # fmt: skip
TOFU: Mapping[str, str] = {
    name: TESTBED[name]
    for name in (
        "steps", "cost", "forget-quality", "probability", "retain-probability", "relearn-10", "int4"
    )
} | {"d": "D"}  # fmt: skip

LEGEND = """
Means over seeds, ± their standard deviation. **erasure**: the audit's score (smallest share of
knowledge that no attack got back, times utility; 1 is best). **verdict**: of each seed. FQ p: p of
the Kolmogorov-Smirnov test of the truth ratios against the retrained reference (high p = alike;
never to be read alone: a collapsed model can have a high one). utility, neighbour: what is still
answered of all rows to be kept, and of the neighbours, relative to the original. P: mean
probability of the forget answers; retain P: of retain answers. XR relearn, XR int4: what relearning
and rounding to 4 bits get back, as a share of the original's lead over the reference. P +10, P
int4: P after 10 steps of training on the forget rows, and after rounding. cost: CPU time of a step
over that of plain fine-tuning (ft-retain) at the same site.
""".strip()


def page(
    title: str,
    name: str,
    record: Mapping[str, Any],
    studies: Mapping[str, Any],
    left: Sequence[str] = (),
) -> str:
    """The page, in Markdown.

    Args:
        title: Its heading.
        name: Of the commands that write it.
        record: Lines of the table, with the command and the versions.
        studies: What the small studies found; empty when there are none.
        left: Systems that have no line yet.
    """
    versions = ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    lines = [
        f"# {title}",
        "",
        f"Written by `{record['command']}` and `python benches/{name}_studies.py` "
        f"({versions}). {LEGEND}",
    ]
    for where, columns, heading in (
        ("testbed", TESTBED, "Testbed: as `expunge forget` runs them"),
        ("tofu", TOFU, "TOFU forget10 cut to 20 authors: the papers' way, no stop level"),
    ):
        here = [line for line in record["lines"] if line["site"] == where]
        if here:
            lines += ["", f"## {heading}", "", *table(here, columns)]
        else:
            lines += ["", f"## {heading}", "", "Not run for this page."]
    if left:
        lines += ["", f"Systems not run for this page: {', '.join(left)}."]
    for study in studies.get("studies", ()):
        lines += ["", f"## {study['title']}", "", study["asked"], "", *rows_of(study), ""]
        lines.append(f"**{'Shows' if study['shows'] else 'Does not show'}**: {study['found']}")
    if studies.get("left"):
        lines += ["", f"Studies not run for this page: {', '.join(studies['left'])}."]
    shown = {part for line in record["lines"] for part in line["name"].split(" + ")}
    inferred = [c for c in methods.cards() if c.maturity == "paper" and c.id in shown]
    names = ", ".join(f"`{card.id}`" for card in inferred)
    lines += [
        "",
        "## What is inferred",
        "",
        "Of these the paper or its code leaves parts open, or only a summary was read; each page "
        f"under [reference](../reference/README.md) says which: {names}.",
    ]
    return "\n".join(lines) + "\n"


def table(lines: Sequence[Line], columns: Mapping[str, str]) -> list[str]:
    """One row a system, its seeds together."""
    names = list(dict.fromkeys(line["name"] for line in lines))
    plain = _step_cost([line for line in lines if line["name"] == PLAIN])
    head = ["system", "seeds", *columns.values()]
    rows = [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    for name in names:
        runs = [line for line in lines if line["name"] == name]
        done = [line for line in runs if "failed" not in line]
        if not done:
            cells = [f"no model: {runs[0]['failed'].split('.')[0]}"] + [""] * (len(columns) - 1)
        else:
            cells = [_cell(done, column, plain) for column in columns]
        rows.append(f"| {' | '.join([name, str(len(done)), *cells])} |")
    return rows


def rows_of(study: Mapping[str, Any]) -> list[str]:
    """The table of one small study."""
    head = study["columns"]
    lines = [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    return lines + [f"| {' | '.join(map(_written, row))} |" for row in study["rows"]]


def _cell(runs: Sequence[Line], column: str, plain: float | None) -> str:
    if column == "verdict":
        return ", ".join(sorted({str(run.get("verdict", "")) for run in runs}))
    if column == "cost":
        own = _step_cost(runs)
        return f"{own / plain:.1f}" if own and plain else "–"
    return spread(run.get(column) for run in runs)


def _step_cost(runs: Iterable[Line]) -> float | None:
    costs = [run["cpu_seconds"] / run["steps"] for run in runs if run.get("steps")]
    return fmean(costs) if costs else None


def spread(values: Iterable[float | None]) -> str:
    """Mean and standard deviation of what is known."""
    known = [float(value) for value in values if value is not None]
    if not known:
        return "–"
    mean = _written(fmean(known))
    return f"{mean} ± {_written(stdev(known))}" if len(known) > 1 else mean


def _written(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if value and abs(value) < 0.001:
        return f"{value:.0e}"
    return f"{value:.3g}"
