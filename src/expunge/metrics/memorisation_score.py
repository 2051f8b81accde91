"""Mem: how little of the rows to forget is remembered, as one number that no measure can hide in.

Definition (HM the harmonic mean, 0 if any part is 0; all four on the rows to forget):
    Mem = HM(1 - ES, 1 - EM, 1 - ParaProb, 1 - TR_k)
    ES, EM       extraction strength, exact memorisation
    ParaProb     exp(-nll) of the paraphrased answer
    TR_k         mean_i c_i / (c_i + w_i)      c = ParaProb, w = mean probability of wrong answers

Reference: OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025).

Departs from the paper: its text could not be read; the formula is that of two aggregators built on
it, checked against its tables.

Meaning: 1: nothing is remembered; 0: one of the four measures finds everything. A retrained model
does not reach 1, because truth is likelier than error to whoever knows the language: TR_k stays
near a half. A model in ruins does, so it is read beside the utility score.

Example: 4 / (1/.9 + 1/.5 + 1/.8 + 1/.5).

    >>> from expunge.testing import measure
    >>> parts = {"extraction_strength": 0.1, "exact_memorisation": 0.5}
    >>> parts |= {"paraphrase_probability": 0.2, "truth_ratio": 0.5}
    >>> round(measure("memorisation-score", {"parts": parts}).mean, 6)
    0.628821
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.results import Value
from expunge.numbers.harmonic import harmonic_of

CARD = {
    "id": "memorisation-score",
    "kind": "metric",
    "summary": "How little of the rows is remembered, whichever way one asks (harmonic mean).",
    "paper": "OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025)",
    "needs": ["parts"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "none beyond its parts",
    "maturity": "beta",
    "version": 1,
}

PARTS = ("extraction_strength", "exact_memorisation", "paraphrase_probability", "truth_ratio")


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The harmonic mean of what is not remembered.

    Args:
        scores: ``parts``: each of `PARTS` in [0, 1]; None where it was not measured.
        params: Nothing to set.
        reference: Not used.

    Returns:
        The mean; the parts are what enters it, 1 minus what was given.
    """
    return harmonic_of(scores, PARTS, not_remembered)


def not_remembered(parts: Mapping[str, float]) -> dict[str, float]:
    """1 minus each part."""
    return {name: 1 - part for name, part in parts.items()}
