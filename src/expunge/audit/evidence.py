"""From findings to the record: statistics, outcomes, verdict, and what the audit cannot say."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from expunge.audit.controls import Control
from expunge.audit.judging import Said, judged
from expunge.audit.limits import limits, not_run, smallest_detectable
from expunge.audit.measures import Values
from expunge.audit.mounting import rows_digest
from expunge.audit.outcomes import Erasure, erasure
from expunge.audit.plan import Plan, decides, family_of, statistic_of
from expunge.audit.record import (
    FORMAT,
    Mounted,
    attack_record,
    metric_record,
    release_record,
    utility_record,
)
from expunge.audit.statistics import Recovery
from expunge.audit.utility import Utility
from expunge.audit.verdict import Decision, Equivalence, Evidence, Gate, decide
from expunge.core.registry import attacks
from expunge.core.results import Verdict
from expunge.engine.runtime import Served, without_gate, without_parts
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

PACKAGES = ("expunge", "torch", "transformers", "numpy", "scipy")
MEMBERSHIP = "mia"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an audit was asked to do.

    Attributes:
        model: The audited model as it is served: behind its gate, with its run-time parts.
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
        given: Role -> its rows as they were given.
        unlearn: Carries out a request by the process that made the model, where it is at hand.
        made: How the model was made from the original: kind, method, params, wrappers, seed.
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
    given: Mapping[str, Sequence[Row]]
    unlearn: Callable[[Sequence[Row]], Subject] | None
    made: Mapping[str, Any] | None

    @cached_property
    def bare(self) -> Subject:
        """The audited weights past their gate and run-time parts; the model itself without any."""
        return without_parts(self.model)

    @property
    def has_runtime(self) -> bool:
        """Whether the audited model is more than its weights."""
        return self.bare is not self.model

    @property
    def subjects(self) -> dict[str, Subject | None]:
        """The three models by what they are called in the record, past their run-time parts."""
        return {"model": self.bare, "original": self.original, "reference": self.reference}

    @property
    def measured(self) -> dict[str, Subject | None]:
        """The three models as metrics see them: past a gate, with what a change puts into them."""
        is_more = isinstance(self.model, Served)
        return {**self.subjects, "model": without_gate(self.model) if is_more else self.bare}

    @property
    def is_original(self) -> bool:
        """Whether the audited model is the original, weight for weight."""
        return (
            self.original is not None
            and not self.has_runtime
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
    attacked = found.known or setting.forget
    said = judged(found.mounted, attacked, found.control, setting.holdout, setting.seed)
    decision = decide(_evidence(setting, found, said))
    score = _erasure(found, said.recoveries)
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
            "unit": said.unit,
            "entities": {row.id: row.subject for row in setting.forget},
        },
        "made": None if setting.made is None else dict(setting.made),
        "data": _data(setting),
        "plan": _plan(setting.plan),
        "control": _control(found.control),
        "attacks": {
            one.name: attack_record(one, said.recoveries[one.name], said.judged[one.name])
            for one in found.mounted
        },
        "families": {family: str(outcome) for family, outcome in decision.families.items()},
        "metrics": {id: metric_record(values) for id, values in found.metrics.items()},
        "utility": utility_record(found.utility),
        "erasure_score": score.score,
        "interval": score.interval and list(score.interval),
        "breadth": score.breadth,
        "examples": [dict(example) for example in found.examples],
        **_told(setting, found, decision, said),
        "release": release_record(
            decision.verdict, found.utility, setting.require, setting.min_utility
        ),
    }


def _data(setting: Setting) -> dict[str, dict[str, Any]]:
    """Commitments to the rows as they were given: how many, and one hash for all of a role."""
    return {
        role: {"rows": len(rows), "digest": rows_digest(rows)}
        for role, rows in setting.given.items()
        if rows
    }


def _plan(plan: Plan) -> list[dict[str, Any]]:
    """What was to be run, every default written out."""
    return [
        {
            "id": entry.id,
            "version": attacks.card(entry.id).version,
            "params": json.loads(json.dumps(asdict(attacks.params(entry.id, entry.params)))),
            "runs": entry.runs,
        }
        for entry in plan.entries
    ]


def _told(
    setting: Setting, found: Findings, decision: Decision, said: Said
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
            has_runtime=setting.has_runtime,
            decision=decision,
            smallest=smallest_detectable(said.judged.values()),
            by_membership=MEMBERSHIP in said.recoveries,
        ),
        "not_run": not_run(setting.plan, bool(said.recoveries)),
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


def _evidence(setting: Setting, found: Findings, said: Said) -> Evidence:
    return Evidence(
        gates=tuple(
            Gate(
                name=one.name,
                attack=one.entry.id,
                family=family_of(one.entry.id),
                outcome=said.judged[one.name].outcome,
                told=_numbers(one.entry.id, said.recoveries[one.name]),
                with_runtime=one.with_runtime,
                decides=decides(one.entry.id),
            )
            for one in found.mounted
        ),
        utility=found.utility.value if found.utility else None,
        gibberish=found.utility.gibberish if found.utility else (0.0, 0.0),
        problems=found.problems,
        has_runtime=setting.has_runtime,
        equivalence=_equivalence(setting, found, said),
    )


def _equivalence(setting: Setting, found: Findings, said: Said) -> Equivalence:
    """Model and reference side by side, as far as it was measured."""
    if setting.reference is None:
        return Equivalence()
    quality, fade = (
        (found.metrics.get(id) or {}).get("model") for id in ("forget-quality", "fade")
    )
    membership = said.recoveries.get(MEMBERSHIP)
    return Equivalence(
        rows=len(found.known),
        ks_p=quality.mean if quality else None,
        ks_d_upper=quality.intervals["d"][1] if quality and "d" in quality.intervals else None,
        auc_gap_upper=membership.upper if membership else None,
        fade_ratio=fade.parts.get("ratio") if fade else None,
    )


def _numbers(attack: str, recovery: Recovery) -> str:
    if recovery.value is None or recovery.interval is None:
        return ""
    low, high = recovery.interval
    numbers = f"{recovery.value:.2f} [{low:.2f}, {high:.2f}], gate {recovery.threshold:.2f}"
    kind = statistic_of(attack)
    if kind == "difference":
        side = "over-forgotten" if recovery.model < recovery.control else "membership"
        aucs = f"AUC {recovery.model:.2f}, of the control {recovery.control:.2f}"
        return f"{side}: {aucs}, difference {numbers}"
    return f"{'recovery' if kind == 'recovery' else 'cost'} {numbers}"


def _erasure(found: Findings, recoveries: Mapping[str, Recovery]) -> Erasure:
    """Only attacks that recover something count: being marked as forgotten is no recovery."""
    if found.utility is None:
        return Erasure(score=None, interval=None, breadth=None)
    families = {
        one.name: family_of(one.entry.id)
        for one in found.mounted
        if decides(one.entry.id) and statistic_of(one.entry.id) == "recovery"
    }
    counted = {name: recovery for name, recovery in recoveries.items() if name in families}
    return erasure(counted, families, found.utility.value, found.utility.replicates)
