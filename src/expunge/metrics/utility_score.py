"""Util: can the model still do its work, and does it still write sentences?

Definition (HM the harmonic mean, 0 if any part is 0; MU model utility):
    Util = HM(MU / MU_o, fluency / fluency_o)      o: of the original model
    fluency = share of answers to the forget prompts that are not gibberish

Reference: OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025).

Departs from the paper: fluency comes from whichever measure the benchmark names, high for clean
text, and not from a remote classifier; the log key "gibberish" of published evaluations already is
the probability of clean text, so it is not turned round.

Meaning: 1: as before forgetting; above 1: better. With ``relative=False`` the numbers stand for
themselves, and a model that could do little to begin with scores low whatever was forgotten.

Example: utility fell from .8 to .4, fluency did not: 2 / (1/.5 + 1/1).

    >>> from expunge.testing import measure
    >>> parts = {"model_utility": 0.4, "fluency": 0.9}
    >>> parts |= {"original_model_utility": 0.8, "original_fluency": 0.9}
    >>> round(measure("utility-score", {"parts": parts}).mean, 6)
    0.666667
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import asked, unmeasurable
from expunge.numbers.harmonic import harmonic_of

CARD = {
    "id": "utility-score",
    "kind": "metric",
    "summary": "What the model still can do, and how fluently it says it (harmonic mean).",
    "paper": "OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025)",
    "needs": ["parts"],
    "better": "high",
    "range": [0.0, None],
    "access": "logits",
    "cost": "none beyond its parts",
    "maturity": "beta",
    "version": 1,
}

PARTS = ("model_utility", "fluency")
NAMES = (*PARTS, *(f"original_{name}" for name in PARTS))


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Whether the original model is the measure."""

    relative: bool = param(True, help="divide by the numbers of the original model", paper=True)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The harmonic mean of utility and fluency.

    Args:
        scores: ``parts``: ``model_utility`` and ``fluency`` in [0, 1], and where they are divided
            by them ``original_model_utility`` and ``original_fluency``; None where not measured.
        params: Whether the original model is the measure.
        reference: Not used.

    Returns:
        The mean, not measurable where the original model could do nothing.
    """
    if not params.relative:
        return harmonic_of(scores, PARTS, dict, note="not relative to the original model")
    given = asked(scores, "parts")
    zero = [name for name in NAMES[len(PARTS) :] if given.get(name) == 0]
    if zero:
        return unmeasurable(f"{', '.join(zero)} is 0: there is nothing to compare with")
    return harmonic_of(scores, NAMES, of_original)


def of_original(parts: Mapping[str, float]) -> dict[str, float]:
    """Each part over that of the original model."""
    return {name: parts[name] / parts[f"original_{name}"] for name in PARTS}
