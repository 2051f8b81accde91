"""From findings to the record: statistics, outcomes, verdict, and what the audit cannot say."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from expunge.audit.controls import Control
from expunge.audit.limits import limits, not_run
from expunge.audit.measures import Values
from expunge.audit.mounting import table
from expunge.audit.outcomes import Erasure, Judged, erasure, judge
from expunge.audit.plan import Plan, family_of, threshold_of
from expunge.audit.record import (
    FORMAT,
    Mounted,
    attack_record,
    metric_record,
    release_record,
    utility_record,
)
from expunge.audit.statistics import Leaks, Recovery, recover, resamples, unit_of
from expunge.audit.utility import Utility
from expunge.audit.verdict import Decision, Equivalence, Evidence, Gate, decide
from expunge.core.results import Leak, Verdict
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

PACKAGES = ("expunge", "torch", "transformers", "numpy", "scipy")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an audit was asked to do.

    Attributes:
        model: The audited model, behind its gate if it has one.
        original: The model before forgetting.
        reference: A model trained without the forget rows.
        forget: Rows said to be forgotten.
        retain: Rows to be kept.
        retain_origin: ``given`` or ``bundled``.
        neighbour: Rows close to the forgotten ones, to be kept.
        holdout: Rows nobody trained on.
        told: Forget rows whose answer was told from their wording.
        left_out: Hold-out rows left out because they are judged unlike the forget rows.
        plan: Attacks and metrics.
        seed: All randomness derives from it.
        require: Class that a release needs.
        min_utility: Utility that a release needs.
        paths: Where the models came from.
    """

    model: Subject
    original: Subject | None
    reference: Subject | None
    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    retain_origin: str
    neighbour: tuple[Row, ...]
    holdout: tuple[Row, ...]
    told: int
    left_out: int
    plan: Plan
    seed: int
    require: Verdict | None
    min_utility: float | None
    paths: Mapping[str, str | Path]

    @cached_property
    def bare(self) -> Subject:
        """The audited weights without their gate."""
        if self.model.gate is None:
            return self.model
        bare = copy(self.model)
        bare.gate = None
        return bare

    @property
    def subjects(self) -> dict[str, Subject | None]:
        """The three models by what they are called in the record, without gates."""
        return {"model": self.bare, "original": self.original, "reference": self.reference}

    @property
    def is_original(self) -> bool:
        """Whether the audited model is the original, weight for weight."""
        return (
            self.original is not None
            and self.model.gate is None
            and self.model.digest == self.original.digest
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What the models did.

    Attributes:
        problems: Why the audit cannot carry a verdict.
        known: Forget rows the original knows; these are attacked.
        control: What stands for a model that never knew.
        mounted: The attacks.
        metrics: Metric -> its values.
        utility: Utility of the audited model.
        examples: Rows that leak most, with the answers to the plain question.
        new_tokens: Length of an answer.
    """

    problems: tuple[str, ...] = ()
    known: tuple[Row, ...] = ()
    control: Control | None = None
    mounted: tuple[Mounted, ...] = ()
    metrics: Values = field(default_factory=dict)
    utility: Utility | None = None
    examples: tuple[Mapping[str, Any], ...] = ()
    new_tokens: int = 24


def assemble(setting: Setting, found: Findings, seconds: float) -> dict[str, Any]:
    """The value of ``audit.json``."""
    unit, recoveries, judged = _judged(setting, found)
    decision = decide(_evidence(setting, found, recoveries, judged))
    score = _erasure(found, recoveries)
    return {
        "format": FORMAT,
        "verdict": str(decision.verdict),
        "reasons": list(decision.reasons),
        "profile": setting.plan.profile,
        "seed": setting.seed,
        "versions": {"python": python_version(), **{name: version(name) for name in PACKAGES}},
        "seconds": seconds,
        "models": {who: _model(setting, who, one) for who, one in setting.subjects.items()},
        "request": {
            "rows": len(setting.forget),
            "subjects": len({row.subject for row in setting.forget if row.subject}),
            "known": len(found.known),
            "unit": unit,
            "entities": {row.id: row.subject for row in setting.forget},
        },
        "control": _control(found.control),
        "attacks": {
            one.name: attack_record(one, recoveries[one.name], judged[one.name])
            for one in found.mounted
        },
        "families": {family: str(outcome) for family, outcome in decision.families.items()},
        "metrics": {id: metric_record(values) for id, values in found.metrics.items()},
        "utility": utility_record(found.utility),
        "erasure_score": score.score,
        "interval": score.interval and list(score.interval),
        "breadth": score.breadth,
        "examples": [dict(example) for example in found.examples],
        **_told(setting, found, decision, recoveries),
        "release": release_record(
            decision.verdict, found.utility, setting.require, setting.min_utility
        ),
    }


def _told(
    setting: Setting, found: Findings, decision: Decision, recoveries: Mapping[str, Recovery]
) -> dict[str, list[str]]:
    """What the audit does not say."""
    return {
        "limits": limits(
            rows=len(setting.forget),
            known=len(found.known),
            told=setting.told,
            left_out=setting.left_out,
            has_original=setting.original is not None,
            control=found.control,
            retain_origin=setting.retain_origin,
            utility=found.utility,
            has_runtime=setting.model.gate is not None,
            decision=decision,
        ),
        "not_run": not_run(setting.plan, bool(recoveries)),
        "open_families": list(decision.open_families),
    }


def _model(setting: Setting, who: str, subject: Subject | None) -> dict[str, Any] | None:
    if subject is None:
        return None
    path = setting.paths.get(who)
    return {
        "label": Path(path).name if path else who,
        "path": None if path is None else str(path),
        "digest": subject.digest,
    }


def _control(control: Control | None) -> dict[str, Any] | None:
    if control is None:
        return None
    return {"kind": control.kind, "rows": len(control.rows), "invented": control.invented}


def _judged(
    setting: Setting, found: Findings
) -> tuple[str, dict[str, Recovery], dict[str, Judged]]:
    """The unit of resampling, and recovery and outcome of every attack."""
    unit, units = unit_of(found.known or setting.forget)
    if found.control is None:
        return unit, {}, {}
    draws = resamples(units, found.control.units, setting.seed)
    recoveries, invalid = {}, {}
    for one in found.mounted:
        runs, why = _valid_runs(one)
        if why:
            invalid[one.name] = why
        leaks = Leaks(
            original=table([one.original[run] for run in runs], found.known),
            model=table([one.model[run] for run in runs], found.known),
            control=table([one.control[run] for run in runs], found.control.rows),
        )
        recoveries[one.name] = recover(leaks, draws, _gate(one))
    return unit, recoveries, judge(recoveries, invalid)


def _valid_runs(one: Mounted) -> tuple[list[int], str]:
    """Runs that count, and why none does; then all are kept for the record."""
    everyone = list(range(len(one.model)))
    asked = {"original": one.original, "model": one.model, "control": one.control}
    broken = {
        run: f"{leaks[run].invalid} ({who})"
        for who, leaks in asked.items()
        for run in everyone
        if leaks[run].invalid
    }
    if len({leak.threshold for leaks in asked.values() for leak in leaks}) > 1:
        return everyone, "original, model and control were not tested in the same form"
    valid = [run for run in everyone if run not in broken]
    return (valid, "") if valid else (everyone, next(iter(broken.values())))


def _gate(one: Mounted) -> float:
    """The threshold of the form in which the attack ran."""
    runs: Sequence[Leak] = (*one.original, *one.model, *one.control)
    replaced = [leak.threshold for leak in runs if leak.threshold is not None]
    return max(replaced, default=threshold_of(one.entry.id))


def _evidence(
    setting: Setting,
    found: Findings,
    recoveries: Mapping[str, Recovery],
    judged: Mapping[str, Judged],
) -> Evidence:
    quality = (found.metrics.get("forget-quality") or {}).get("model")
    return Evidence(
        gates=tuple(
            Gate(
                name=one.name,
                attack=one.entry.id,
                family=family_of(one.entry.id),
                outcome=judged[one.name].outcome,
                told=_numbers(recoveries[one.name]),
                with_runtime=one.with_runtime,
            )
            for one in found.mounted
        ),
        utility=found.utility.value if found.utility else None,
        gibberish=found.utility.gibberish if found.utility else (0.0, 0.0),
        problems=found.problems,
        has_runtime=setting.model.gate is not None,
        equivalence=Equivalence(
            rows=len(found.known) if setting.reference else 0,
            ks_p=quality.mean if quality else None,
            ks_d_upper=quality.parts.get("d_upper") if quality else None,
        ),
    )


def _numbers(recovery: Recovery) -> str:
    if recovery.value is None or recovery.interval is None:
        return ""
    low, high = recovery.interval
    return f"recovery {recovery.value:.2f} [{low:.2f}, {high:.2f}], gate {recovery.threshold:.2f}"


def _erasure(found: Findings, recoveries: Mapping[str, Recovery]) -> Erasure:
    if found.utility is None:
        return Erasure(score=None, interval=None, breadth=None)
    families = {one.name: family_of(one.entry.id) for one in found.mounted}
    return erasure(recoveries, families, found.utility.value, found.utility.replicates)
