"""From logs to the benchmark's numbers, by the metrics of the registry."""

from collections.abc import Mapping
from typing import Any

from expunge.core import registry
from expunge.core.results import Value
from expunge.core.scores import table

Log = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Set -> reading -> {row id: value}."""

VARIANTS = ("geometric", "arithmetic")
UTILITY = ("retain", "real_authors", "world_facts")
PARTS = ("prob", "rouge", "truth_ratio")
BY_OPTIONS = ("real_authors", "world_facts")
"""Sets whose answers have a probability among options."""

KNOWN = 0.1
"""A part of utility below this in the original model was never known to it."""


def summarise(
    log: Log,
    reference: Log | None = None,
    original: Log | None = None,
    *,
    allow_unmatched: bool = False,
) -> dict[str, Any]:
    """All numbers of one model.

    Args:
        log: What `evaluate` returned for it.
        reference: The same for the retrained reference, which forget quality compares with.
        original: The same for the model before forgetting; where given, utility is measured only
            if that model had it.
        allow_unmatched: Compare with a reference that was evaluated on other rows.

    Returns:
        ``model_utility``, ``parts`` and ``forget_truth_ratio`` by variant of the truth ratio,
        ``forget_quality`` (None without a reference), ``extraction_strength`` and
        ``exact_memorisation`` (where the log has token hits) and ``rows``; a number that cannot be
        measured is None, and ``notes`` says why.

    Raises:
        ExpungeError: E-DATA-013 when the reference was evaluated on other rows.
    """
    parts = {variant: _parts(log, variant) for variant in VARIANTS}
    known = _lacking(_parts(original, VARIANTS[0])) if original is not None else ""
    utility = {variant: _utility(parts[variant], known) for variant in VARIANTS}
    hits = {
        name: _measure(name.replace("_", "-"), log["forget"])
        for name in ("extraction_strength", "exact_memorisation")
        if "token_hit" in log["forget"]
    }
    quality = _quality(log, reference, allow_unmatched) if reference is not None else None
    return {
        "model_utility": {variant: value.mean for variant, value in utility.items()},
        "parts": parts,
        "forget_truth_ratio": {v: parts[v]["forget.truth_ratio"] for v in VARIANTS},
        "forget_quality": quality,
        **{name: value.mean for name, value in hits.items()},
        "rows": {name: len(readings["nll"]) for name, readings in log.items()},
        "notes": _notes(utility[VARIANTS[0]], quality),
    }


def cells(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The columns of the benchmark's table."""
    parts, quality = summary["parts"]["geometric"], summary["forget_quality"] or {}
    return {
        "probability": parts["forget.prob"],
        "ROUGE": parts["forget.rouge"],
        "truth ratio": parts["forget.truth_ratio"],
        "extraction strength": summary.get("extraction_strength"),
        "exact memorisation": summary.get("exact_memorisation"),
        "forget quality p": quality.get("p"),
        "D": quality.get("d"),
        "model utility": summary["model_utility"]["geometric"],
    }


def details(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The columns of the second table: the nine parts of utility."""
    parts = summary["parts"]["geometric"]
    named = {"real_authors": "authors", "world_facts": "world"}
    return {
        f"{named.get(name, name)} {part.replace('_', ' ')}": parts[f"{name}.{part}"]
        for name in UTILITY
        for part in PARTS
    }


def _parts(log: Log, variant: str) -> dict[str, float | None]:
    """The twelve numbers of a model: three on each of the four sets."""
    values: dict[str, float | None] = {}
    for name in (*UTILITY, "forget"):
        among = "options" if name in BY_OPTIONS else "plain"
        measured = {
            "prob": _measure("probability", log[name], among=among),
            "rouge": _measure("rouge", log[name]),
            "truth_ratio": _measure(
                "truth-ratio",
                log[name],
                variant=variant,
                rows="forget" if name == "forget" else "keep",
                # Published logs of some models scored the plain answer a second time, as if it were
                # a paraphrase of itself; their truth ratios come from that second score.
                truth="paraphrase" if table(log[name], "paraphrase_nll") else "answer",
            ),
        }
        values |= {f"{name}.{part}": value.mean for part, value in measured.items()}
    return values


def _utility(parts: Mapping[str, float | None], lacking: str) -> Value:
    if lacking:
        return Value(mean=None, note=f"not measurable on this model: {lacking}")
    used = {name: part for name, part in parts.items() if not name.startswith("forget.")}
    return _measure("model-utility", {"parts": used})


def _lacking(parts: Mapping[str, float | None]) -> str:
    """Which parts of utility a model never had, as a sentence; empty when it has all."""
    unknown = {
        name: part
        for name, part in parts.items()
        if not name.startswith("forget.") and part is not None and part < KNOWN
    }
    told = ", ".join(f"{name} is {part:.2g}" for name, part in unknown.items())
    return f"before any forgetting its {told}" if told else ""


def _notes(utility: Value, quality: Mapping[str, Any] | None) -> dict[str, str]:
    notes = {"model_utility": utility.note} if utility.note else {}
    if quality is not None:
        notes["forget_quality"] = (
            "a high p says that the truth ratios are those of the reference; a model in ruins can "
            "reach it too, so read it beside utility and the retain columns"
        )
    return notes


def _quality(log: Log, reference: Log, allow_unmatched: bool) -> dict[str, Any]:
    value = _measure(
        "forget-quality", log["forget"], reference["forget"], allow_unmatched=allow_unmatched
    )
    told = {"note": value.note} if value.note else {}
    return {"p": value.mean, **value.parts, **told}


def _measure(
    metric_id: str,
    scores: Mapping[str, Any],
    reference: Mapping[str, Any] | None = None,
    **params: Any,
) -> Value:
    value: Value = registry.metrics.load(metric_id).compute(
        scores, registry.metrics.params(metric_id, params), reference
    )
    return value
