"""What an audit leaves behind: the value of ``audit.json``, and the object that carries it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from math import isnan
from pathlib import Path
from typing import Any

from expunge.audit.mounting import mean_beside, mean_curve, mean_of, mean_parts, mean_per_row
from expunge.audit.outcomes import NEVER_DECIDED, Judged
from expunge.audit.plan import Entry, decides, family_of, level_of, statistic_of, threshold_of
from expunge.audit.schema import check_record
from expunge.audit.statistics import Recovery
from expunge.audit.utility import Utility
from expunge.core.atomic import write_json, write_text
from expunge.core.results import Leak, Outcome, Value, Verdict

FORMAT = "unlearning-audit/1"
MIN_UTILITY = 0.95
"""Lower bound of utility that a release needs when nothing else is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mounted:
    """One attack of an audit: what it got out of each model, one leak a run.

    Attributes:
        name: What it is called in the audit.
        entry: The attack.
        original: From the original; none where the attack is its own control.
        model: From the audited model.
        control: From the control; none where chance or the attack itself is the control.
        with_runtime: False for a second run, past the run-time part of the model.
    """

    name: str
    entry: Entry
    original: Sequence[Leak]
    model: Sequence[Leak]
    control: Sequence[Leak]
    with_runtime: bool = True

    def leaks(self) -> dict[str, Sequence[Leak]]:
        """The leaks by whom they were got from; none from whom was not attacked."""
        return {"original": self.original, "model": self.model, "control": self.control}


def attack_record(mounted: Mounted, recovery: Recovery, judged: Judged) -> dict[str, Any]:
    """One attack as ``audit.json`` holds it."""
    runs = mounted.leaks()
    family = family_of(mounted.entry.id)
    return {
        "family": family,
        "level": level_of(mounted.entry.id),
        "statistic": statistic_of(mounted.entry.id),
        "decides": decides(mounted.entry.id),
        "with_runtime": mounted.with_runtime,
        "threshold": threshold_of(mounted.entry.id),
        "leak": {who: _number(getattr(recovery, who)) for who in runs},
        "recovery": recovery.value,
        "interval": recovery.interval and list(recovery.interval),
        "upper": recovery.upper,
        "gate": recovery.threshold,
        "outcome": str(judged.outcome),
        "p": recovery.p,
        "n": recovery.n,
        "runs": len(mounted.model or mounted.original),
        "would_pass_at": judged.would_pass_at,
        "would_fail_at": judged.would_fail_at,
        "rows_to_decide": judged.rows_to_decide,
        "note": _note(mounted, family, judged),
        "parts": {who: mean_parts(leaks) for who, leaks in runs.items()},
        "curve": _curve(runs),
        "layers": _layers(runs),
        "per_row": {who: mean_per_row(leaks) for who, leaks in runs.items()},
        "beside": {who: mean_beside(leaks) for who, leaks in runs.items()},
    }


def _number(value: float) -> float | None:
    return None if isnan(value) else value


def _note(mounted: Mounted, family: str, judged: Judged) -> str:
    """The outcome's own note first, then what the attack says of the model and the control."""
    notes = [judged.note]
    if judged.outcome is Outcome.PASS and family in NEVER_DECIDED:
        notes.append("informative, no finding")
    notes += [leak.note for leak in mounted.model]
    notes += [f"control: {leak.note}" for leak in mounted.control if leak.note]
    return "; ".join(dict.fromkeys(note for note in notes if note))


def _curve(runs: Mapping[str, Sequence[Leak]]) -> dict[str, list[Any]] | None:
    curves = {who: mean_curve(leaks) for who, leaks in runs.items()}
    steps = sorted(set.intersection(*(set(curve) for curve in curves.values())))
    if not steps:
        return None
    return {"steps": steps, **{who: [curve[s] for s in steps] for who, curve in curves.items()}}


def _layers(runs: Mapping[str, Sequence[Leak]]) -> dict[str, dict[str, float]] | None:
    """What was read at each block, of every model that was attacked."""
    read = {who: mean_of([leak.layers for leak in leaks]) for who, leaks in runs.items()}
    named = {who: {str(at): of[at] for at in sorted(of)} for who, of in read.items()}
    return named if named["model"] else None


def metric_record(values: Mapping[str, Value | None]) -> dict[str, Any]:
    """One metric as ``audit.json`` holds it."""
    return {who: value and value.as_dict() for who, value in values.items()}


def utility_record(utility: Utility | None) -> dict[str, Any] | None:
    """Utility as ``audit.json`` holds it."""
    if utility is None:
        return None
    parts = {
        part: {"model": utility.parts[part][0], "original": utility.parts[part][1]}
        if part in utility.parts
        else None
        for part in ("retain", "neighbour", "general")
    }
    model, original = utility.gibberish
    return {
        "value": utility.value,
        "interval": list(utility.interval),
        **parts,
        "strata": {
            name: {**asdict(one), "interval": list(one.interval)}
            for name, one in utility.strata.items()
        },
        "gibberish": {"model": model, "original": original},
        "measure": utility.measure,
        "rows": utility.rows,
    }


def release_record(
    verdict: Verdict,
    utility: Utility | None,
    require: Verdict | None,
    min_utility: float | None,
) -> dict[str, Any] | None:
    """Whether the model may be released: class and utility as asked for; None when not asked."""
    if require is None and min_utility is None:
        return None
    least = MIN_UTILITY if min_utility is None else min_utility
    lower = utility.interval[0] if utility else 0.0
    why = []
    if require is not None and not verdict.at_least(require):
        why.append(f"the verdict is {verdict}, {require} is required")
    if lower < least:
        why.append(f"the lower bound of utility is {lower:.2f}, {least:.2f} is required")
    return {"require": require and str(require), "min_utility": least, "met": not why, "why": why}


@dataclass(slots=True, eq=False)
class Audit:
    """A finished audit.

    Attributes:
        data: The value of ``audit.json``; `schema()` of `expunge.audit.schema` describes it.
        report: Where the report was written, once it was.
    """

    data: Mapping[str, Any]
    report: Path | None = None

    @property
    def verdict(self) -> Verdict:
        """The class of the audited model."""
        return Verdict(self.data["verdict"])

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why this class, then every failing gate."""
        return tuple(self.data["reasons"])

    @property
    def released(self) -> bool:
        """Whether the class and the utility asked for are reached; True when none was."""
        release = self.data["release"]
        return release is None or bool(release["met"])

    def summary(self) -> dict[str, Any]:
        """The value printed under ``--json``."""
        data = self.data
        kept = ("recovery", "interval", "gate", "outcome")
        return {
            "verdict": data["verdict"],
            "reasons": list(data["reasons"]),
            "erasure_score": data["erasure_score"],
            "interval": data["interval"],
            "utility": data["utility"] and data["utility"]["value"],
            "attacks": {
                id: {key: attack[key] for key in kept} for id, attack in data["attacks"].items()
            },
            "metrics": {
                id: values["model"] and values["model"]["mean"]
                for id, values in data["metrics"].items()
            },
            "report": None if self.report is None else str(self.report),
        }

    def save(self, folder: str | Path) -> None:
        """Write ``audit.json``, ``report.html`` and ``summary.json``, that one last.

        Raises:
            ExpungeError: ``E-REQ-002`` when the disk is full.
        """
        folder = Path(folder)
        check_record(self.data)
        write_json(folder / "audit.json", self.data)
        self.to_html(folder / "report.html")
        write_json(folder / "summary.json", self.summary())

    def to_html(self, path: str | Path) -> None:
        """Write the report as one self-contained page."""
        write_text(path, import_module("expunge.report").render_audit(self.data))
        self.report = Path(path)
