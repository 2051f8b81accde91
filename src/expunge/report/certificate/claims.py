"""What a certificate says of an audit: everything that was concluded, and nothing of anybody.

The claims are a function of ``audit.json`` alone. Whoever verifies computes them again and compares
field by field. Rows, their ids, subjects, answers, paths and names of folders stay behind; what is
certified of rows and weights are digests.
"""

import re
from collections.abc import Mapping
from typing import Any

from expunge.core.canonical import canonical, digest
from expunge.core.errors import ExpungeError
from expunge.core.results import Outcome, Verdict

Record = Mapping[str, Any]

TESTED = ("statistic", "decides", "with_runtime", "outcome", "recovery", "interval", "gate")
"""What is certified of each attack."""
SUMMARISED = ("recovery", "interval", "gate", "outcome")
"""What the summary says of each attack."""
PLAIN = re.compile(r"[A-Za-z0-9][\w.+:/=-]{0,63}\Z", re.ASCII)
"""A parameter's text that is a name of ours rather than somebody's text."""
EXACT = 2**53 - 1
"""Largest integer that JSON holds exactly."""


def claims_of(record: Record) -> dict[str, Any]:
    """What is certified of the audit that ``record`` (``audit.json``) tells of."""
    attacks = record["attacks"]
    utility, release = record["utility"], record["release"]
    plan = [_planned(entry) for entry in record["plan"]]
    return {
        "verdict": record["verdict"],
        "reasons": list(record["reasons"]),
        **_tests(record["verdict"], attacks),
        "configuration": [
            {"name": name, "digest": {"sha256": digest(value)}}
            for name, value in (("plan", plan), ("data", record["data"]))
        ],
        "erasure_score": record["erasure_score"],
        "interval": record["interval"],
        "breadth": record["breadth"],
        "utility": utility and {key: utility[key] for key in ("value", "interval")},
        "profile": record["profile"],
        "seed": _exact(record["seed"]),
        "attacks": {name: {key: attack[key] for key in TESTED} for name, attack in attacks.items()},
        "families": dict(record["families"]),
        "control": record["control"],
        "request": {key: record["request"][key] for key in ("rows", "subjects", "known", "unit")},
        "weights": {who: model and model["digest"] for who, model in record["models"].items()},
        "data": {role: dict(rows) for role, rows in record["data"].items()},
        "plan": plan,
        "versions": dict(record["versions"]),
        "limits": list(record["limits"]),
        "not_run": list(record["not_run"]),
        "open_families": list(record["open_families"]),
        "release": release and {key: release[key] for key in ("require", "min_utility", "met")},
    }


def compare_claims(claimed: Record, record: Record) -> None:
    """Check that a certificate says what the record says, field by field.

    Raises:
        ExpungeError: ``E-CERT-008`` with the fields that differ.
    """
    ours = claims_of(record)
    differ = [key for key in ours if canonical(claimed[key]) != canonical(ours[key])]
    if differ:
        raise disagree("The certificate", differ)


def compare_summary(summary: Any, record: Record) -> None:
    """Check that ``summary.json`` says what the record says.

    Raises:
        ExpungeError: ``E-CERT-008`` with the fields that differ.
    """
    ours = {
        "verdict": record["verdict"],
        "reasons": record["reasons"],
        "erasure_score": record["erasure_score"],
        "interval": record["interval"],
        "utility": record["utility"] and record["utility"]["value"],
        "attacks": {
            name: {key: attack[key] for key in SUMMARISED}
            for name, attack in record["attacks"].items()
        },
        "metrics": {
            id: values["model"] and values["model"]["mean"]
            for id, values in record["metrics"].items()
        },
    }
    theirs = summary if isinstance(summary, Mapping) else {}
    differ = [key for key, value in ours.items() if key not in theirs or theirs[key] != value]
    if differ:
        raise disagree("summary.json", differ)


def disagree(what: str, fields: list[str]) -> ExpungeError:
    """``E-CERT-008``."""
    return ExpungeError(
        "E-CERT-008",
        f"{what} and audit.json do not agree in: {', '.join(fields[:10])}.",
        "the same result in all of them.",
        "Do not rely on this folder; run the audit again and sign that.",
    )


def _tests(verdict: str, attacks: Mapping[str, Record]) -> dict[str, Any]:
    """Result and tests in the words of in-toto's test results."""
    named: dict[str, list[str]] = {"passedTests": [], "warnedTests": [], "failedTests": []}
    kinds = {Outcome.PASS: "passedTests", Outcome.FAIL: "failedTests"}
    for name in sorted(attacks):
        named[kinds.get(Outcome(attacks[name]["outcome"]), "warnedTests")].append(name)
    return {"result": _result(Verdict(verdict), named), **named}


def _result(verdict: Verdict, named: Mapping[str, list[str]]) -> str:
    if verdict is Verdict.INCONCLUSIVE:
        return "WARNED"
    if not verdict.at_least(Verdict.FORGOTTEN_BLACKBOX):
        return "FAILED"
    return "WARNED" if named["warnedTests"] or named["failedTests"] else "PASSED"


def _planned(entry: Record) -> dict[str, Any]:
    kept = {key: entry[key] for key in ("id", "version", "runs")}
    return kept | {"params": {name: _shown(value) for name, value in entry["params"].items()}}


def _shown(value: Any) -> Any:
    """A parameter as it is, or its hash: a plug-in may take texts of any origin."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) <= EXACT:
        return value
    if isinstance(value, str) and PLAIN.match(value):
        return value
    if isinstance(value, list):
        return [_shown(one) for one in value]
    return {"sha256": digest(str(value) if isinstance(value, int) else value)}


def _exact(seed: Any) -> Any:
    """A seed as a number where JSON holds it exactly, else as text."""
    return str(seed) if isinstance(seed, int) and abs(seed) > EXACT else seed
