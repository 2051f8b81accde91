"""What two hundred audits amount to: who was called what, and which attack can be believed.

Shares have Clopper-Pearson intervals. A metric or an attack is *faithful* when it is higher on
models that know than on models that never did, and *robust* when teaching the rows again moves it
as it moves the retrained model and rounding does not move it (`expunge.lab.meta_evaluation`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from scipy.stats import binomtest

from expunge.audit.run import PAST_RUNTIME
from expunge.core.results import Verdict
from expunge.lab.meta_evaluation import Stressed, faithfulness, standing

Record = Mapping[str, Any]

STATES = ("never", "knows", "hides", "ruins", "unlearned")
FORGOTTEN = frozenset({
    str(Verdict.FORGOTTEN_BLACKBOX), str(Verdict.FORGOTTEN_WHITEBOX),
    str(Verdict.RETRAIN_EQUIVALENT),
})  # fmt: skip
FOUND = frozenset({str(Verdict.HIDDEN), str(Verdict.GUARDED), str(Verdict.NOT_FORGOTTEN)})
"""Classes that say that the model still has it."""
HIDDEN = FOUND - {str(Verdict.NOT_FORGOTTEN)}
"""Classes that say that it hides it."""
ANSWERS = 0.10
"""Share of the plain questions answered from which a model made to hide does not hide."""
LOW_IS_KNOWLEDGE = frozenset({"truth-ratio", "forget-quality"})
"""Metrics that are high on a model that does not know."""


def state_of(one: Record) -> str:
    """What is known of a model; one made to hide that still answers when asked counts as knowing.

    That it still answers is no judgement of the audit: it is how the making went.
    """
    said = one["attacks"].get("direct", {}).get("leak", {}).get("model") or 0.0
    return "knows" if one["state"] == "hides" and said > ANSWERS else str(one["state"])


def confusion(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """State -> class -> number of audits."""
    counts: dict[str, Counter[str]] = {state: Counter() for state in STATES}
    for one in records:
        counts[state_of(one)][one["verdict"]] += 1
    return {state: dict(of) for state, of in counts.items() if of}


def share(hits: int, of: int) -> dict[str, float]:
    """A share with its 95% interval (Clopper-Pearson)."""
    low, high = binomtest(hits, of).proportion_ci(0.95, method="exact") if of else (0.0, 1.0)
    return {"hits": hits, "of": of, "low": float(low), "high": float(high)}


def bars(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """The bars an audit is held to, each with what was counted."""

    def counted(state: str, says: Callable[[Record], bool]) -> dict[str, float]:
        of = [one for one in records if state_of(one) == state]
        return share(sum(map(says, of)), len(of))

    def forgotten(one: Record) -> bool:
        return one["verdict"] in FORGOTTEN

    def found(one: Record) -> bool:
        return one["verdict"] in FOUND

    return {
        "knows, called forgotten": counted("knows", forgotten),
        "hides, called forgotten": counted("hides", forgotten),
        "hides, called hidden or guarded": counted("hides", lambda one: one["verdict"] in HIDDEN),
        "never knew, called hidden or not-forgotten": counted("never", found),
        "never knew, called inconclusive": counted(
            "never", lambda one: one["verdict"] == Verdict.INCONCLUSIVE
        ),
        "never knew, called forgotten": counted("never", forgotten),
        "in ruins, called broken": counted("ruins", lambda one: one["verdict"] == Verdict.BROKEN),
    }


def missed(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Audits on the wrong side of a bar, with their reasons."""
    wrong = {
        "never": FOUND,
        "knows": FORGOTTEN,
        "hides": frozenset(map(str, Verdict)) - HIDDEN,
    }
    return [
        {key: one[key] for key in ("name", "verdict", "reasons")}
        for one in records
        if one["verdict"] in wrong.get(state_of(one), ())
    ]


def kinds(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Kind of model -> classes, mean erasure score, and the gates that fail."""
    groups: dict[str, list[Record]] = {}
    for one in sorted(records, key=lambda one: (STATES.index(one["state"]), one["name"])):
        rate = f" x {one['strength']:g}" if one["state"] == "unlearned" else ""
        groups.setdefault(one["kind"] + rate, []).append(one)
    return {kind: _kind(of) for kind, of in groups.items()}


def _kind(of: Sequence[Record]) -> dict[str, Any]:
    failing = Counter(
        id for one in of for id, attack in one["attacks"].items() if attack["outcome"] == "fail"
    )
    scores = [one["erasure_score"] for one in of if one["erasure_score"] is not None]
    return {
        "audits": len(of),
        "verdicts": dict(Counter(one["verdict"] for one in of).most_common()),
        "score": f"{fmean(scores):.2f}" if scores else "",
        "failing": dict(failing.most_common(5)),
    }


def by_rows(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Rows given -> what models that never saw them were called."""
    groups: dict[int, list[str]] = {}
    for one in records:
        if one["state"] == "never":
            groups.setdefault(one["rows"], []).append(one["verdict"])
    return {
        str(n): {
            "audits": len(of),
            "inconclusive": of.count(str(Verdict.INCONCLUSIVE)),
            "forgotten": sum(verdict in FORGOTTEN for verdict in of),
            "found": sum(verdict in FOUND for verdict in of),
        }
        for n, of in sorted(groups.items())
    }


def costs(records: Sequence[Record]) -> dict[str, float]:
    """CPU-seconds of the audits."""
    spent = sorted(one["cpu_seconds"]["audited"] for one in records if one["attacks"]) or [0.0]
    return {
        "median": spent[len(spent) // 2],
        "p90": spent[int(0.9 * (len(spent) - 1))],
        "longest": spent[-1],
    }


def instruments(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Metric or attack -> how far it can be believed."""
    names = dict.fromkeys(name for one in records for name in read(one))
    return {name: _instrument(name, records) for name in names}


def read(one: Record) -> dict[str, float]:
    """What all instruments say of a model, high where it knows."""
    leaks = {
        id: attack["leak"]["model"]
        for id, attack in one["attacks"].items()
        if not id.endswith(PAST_RUNTIME)
    }
    said = {**one["metrics"], **leaks}
    return {id: turned(id, value) for id, value in said.items() if value is not None}


def turned(name: str, value: float) -> float:
    """A reading so that higher is more knowledge."""
    return -value if name in LOW_IS_KNOWLEDGE else value


def _instrument(name: str, records: Sequence[Record]) -> dict[str, Any]:
    def said(*states: str) -> list[float]:
        return [read(one)[name] for one in records if one["state"] in states and name in read(one)]

    knew, never, hides = said("knows"), said("never"), said("hides")
    found: dict[str, Any] = {
        "faithfulness": faithfulness(knew, never) if knew and never else None,
        "sees hiding": faithfulness(hides, never) if hides and never else None,
        "decided": sum(_decided(one, name) for one in records if one["state"] == "hides"),
    }
    stressed = [one["stress"] for one in records if one.get("stress")]
    unlearned = [
        Stressed(
            before=turned(name, of["before"][name]),
            relearned=turned(name, of["relearned"][name]),
            quantised=turned(name, of["quantised"][name]),
            utility=one["utility"] or 0.0,
        )
        for one in records
        if one["state"] == "unlearned" and (of := one.get("stress")) and name in of["before"]
    ]
    control = [of for one in records if one["state"] == "never" and (of := one.get("stress"))]
    if (
        not (stressed and unlearned and control and knew and never)
        or name not in control[0]["before"]
    ):
        return found
    reference = tuple(turned(name, control[0][at][name]) for at in ("before", "relearned"))
    try:
        of = standing(knew, never, unlearned, reference=(reference[0], reference[1]))
    except ValueError:
        return found
    return found | {
        "relearning": of.relearning,
        "quantisation": of.quantisation,
        "models": of.models,
    }


def _decided(one: Record, name: str) -> bool:
    """Whether an attack was the only one to fail beside none or few."""
    failing = [id for id, attack in one["attacks"].items() if attack["outcome"] == "fail"]
    return failing == [name]
