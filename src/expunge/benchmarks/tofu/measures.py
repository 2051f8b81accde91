"""The numbers of TOFU: three on each of four sets, and what is made of them."""

from collections.abc import Mapping
from typing import Any

from expunge.core.measuring import Measure
from expunge.core.results import Value
from expunge.data.open_unlearning import MEMBERSHIP

VARIANTS = ("geometric", "arithmetic")
UTILITY = ("retain", "real_authors", "world_facts")
SETS = (*UTILITY, "forget")
PARTS = ("prob", "rouge", "truth_ratio")
BY_OPTIONS = ("real_authors", "world_facts")
"""Sets whose answers have a probability among options."""

KNOWN = 0.1
"""A part of utility below this in the original model was never known to it."""

ALONE = ("forget_quality", "extraction_strength", "exact_memorisation", "privleak")
"""Numbers that stand for themselves in the summary."""

OF_UTILITY = ("model_utility", "utility_score", "unlearning_score")
"""Beginnings of the names of numbers that utility enters."""

CAUTION = (
    "a high p says that the truth ratios are those of the reference; a model in ruins can reach it "
    "too, so read it beside utility and the retain columns"
)


def part(name: str, variant: str) -> str:
    """The measure that is a part of utility: ``retain.truth_ratio`` is there in two variants."""
    is_variant = name.endswith("truth_ratio") and variant != VARIANTS[0]
    return f"{name}.{variant}" if is_variant else name


def measures() -> dict[str, Measure]:
    """All numbers; the arithmetic variants carry that word in their names."""
    on_sets = {name: each for of in SETS for name, each in _of_set(of).items()}
    return {
        **on_sets,
        "model_utility": _utility("geometric"),
        "model_utility.arithmetic": _utility("arithmetic"),
        "forget_quality": Measure(metric="forget-quality"),
        "extraction_strength": Measure(metric="extraction-strength"),
        "exact_memorisation": Measure(metric="exact-memorisation"),
        **{name: Measure(metric=name.replace("_", "-")) for name in MEMBERSHIP},
        **_scores(),
    }


def _scores() -> dict[str, Measure]:
    """The four scores of OpenUnlearning, and what they are made of that nothing else needs."""
    reworded = {"truth": "paraphrase"}
    both = ("model_utility", "forget.fluency")
    privacy = {name: f"mia_{name}" for name in ("loss", "zlib", "min_k", "min_k_plus_plus")}
    memorised = {
        "extraction_strength": "extraction_strength",
        "exact_memorisation": "exact_memorisation",
        "paraphrase_probability": "forget.paraphrase_prob",
        "truth_ratio": "forget.paraphrase_share",
    }
    parts = {"memorisation": "memorisation_score", "utility": "utility_score"}
    useful = {of.rpartition(".")[2]: of for of in both}
    return {
        "forget.paraphrase_prob": Measure(metric="probability", params=reworded),
        "forget.paraphrase_share": Measure(
            metric="probability", params={**reworded, "among": "mean"}
        ),
        "forget.fluency": Measure(metric="gibberish", params={"language": True}, better="high"),
        "memorisation_score": Measure(metric="memorisation-score", of=memorised),
        "privacy_score": Measure(
            metric="privacy-score",
            of=privacy | {f"reference_{part}": f"reference:{of}" for part, of in privacy.items()},
        ),
        "utility_score": Measure(
            metric="utility-score",
            of=useful | {f"original_{part}": f"original:{of}" for part, of in useful.items()},
        ),
        "unlearning_score": Measure(
            metric="unlearning-score", of={**parts, "privacy": "privacy_score"}
        ),
        "unlearning_score.without_privacy": Measure(
            metric="unlearning-score", of=parts, params={"privacy": False}
        ),
    }


def _utility(variant: str) -> Measure:
    parts = [f"{of}.{each}" for of in UTILITY for each in PARTS]
    return Measure(metric="model-utility", of={name: part(name, variant) for name in parts})


def _of_set(of: str) -> dict[str, Measure]:
    is_forget = of == "forget"
    better = None if is_forget else "high"
    among = {"among": "options" if of in BY_OPTIONS else "plain"}
    # Published logs of some models scored the plain answer a second time, as if it were a
    # paraphrase of itself; their truth ratios come from that second score.
    ratio = {"rows": "forget" if is_forget else "keep", "truth": "either"}
    return {
        f"{of}.prob": Measure(metric="probability", on=of, params=among, better=better),
        f"{of}.rouge": Measure(metric="rouge", on=of, better=better),
        **{
            part(f"{of}.truth_ratio", variant): Measure(
                metric="truth-ratio", on=of, params={**ratio, "variant": variant}
            )
            for variant in VARIANTS
        },
    }


def review(
    values: Mapping[str, Value],
    original: Mapping[str, Value] | None,
    reference: Mapping[str, Value] | None,
) -> dict[str, Value]:
    """Utility is measured only if the original model had it."""
    lacking = _lacking(original) if original is not None else ""
    never = Value(mean=None, note=f"not measurable on this model: {lacking}")
    return {
        name: never if lacking and name.startswith(OF_UTILITY) else value
        for name, value in values.items()
    }


def present(values: Mapping[str, Value]) -> dict[str, Any]:
    """The summary: parts and utility by variant, forget quality, memorisation, rows."""
    parts = {
        variant: {
            f"{of}.{each}": values[part(f"{of}.{each}", variant)].mean
            for of in SETS
            for each in PARTS
        }
        for variant in VARIANTS
    }
    quality = values["forget_quality"]
    told = {name: values[name].note for name in ALONE if values[name].mean is None}
    if quality.mean is not None:
        told["forget_quality"] = CAUTION
    if values["model_utility"].note:
        told["model_utility"] = values["model_utility"].note
    return {
        "model_utility": {
            "geometric": values["model_utility"].mean,
            "arithmetic": values["model_utility.arithmetic"].mean,
        },
        "parts": parts,
        "forget_truth_ratio": {v: parts[v]["forget.truth_ratio"] for v in VARIANTS},
        "forget_quality": _quality(quality),
        "extraction_strength": values["extraction_strength"].mean,
        "exact_memorisation": values["exact_memorisation"].mean,
        "privleak": values["privleak"].mean,
        "membership": {name: values[name].mean for name in MEMBERSHIP if name != "privleak"},
        "rows": {of: values[f"{of}.prob"].n for of in SETS},
        "notes": told,
    }


def cells(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The columns of the benchmark's table."""
    parts, quality = summary["parts"]["geometric"], summary["forget_quality"] or {}
    return {
        "probability": parts["forget.prob"],
        "ROUGE": parts["forget.rouge"],
        "truth ratio": parts["forget.truth_ratio"],
        "extraction strength": summary["extraction_strength"],
        "exact memorisation": summary["exact_memorisation"],
        "forget quality p": quality.get("p"),
        "D": quality.get("d"),
        "model utility": summary["model_utility"]["geometric"],
    }


def details(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The columns of the second table: the nine parts of utility."""
    parts = summary["parts"]["geometric"]
    named = {"real_authors": "authors", "world_facts": "world"}
    return {
        f"{named.get(of, of)} {each.replace('_', ' ')}": parts[f"{of}.{each}"]
        for of in UTILITY
        for each in PARTS
    }


def _quality(value: Value) -> dict[str, Any] | None:
    if value.mean is None:
        return None
    told = {"note": value.note} if value.note else {}
    return {"p": value.mean, **value.parts, "interval_d": value.intervals.get("d"), **told}


def _lacking(values: Mapping[str, Value]) -> str:
    """Which parts of utility a model never had, as a sentence; empty when it has all."""
    known = {f"{of}.{each}": values[f"{of}.{each}"].mean for of in UTILITY for each in PARTS}
    unknown = {name: mean for name, mean in known.items() if mean is not None and mean < KNOWN}
    told = ", ".join(f"{name} is {mean:.2g}" for name, mean in unknown.items())
    return f"before any forgetting its {told}" if told else ""
