"""Priv: do membership attacks find on this model what they find on the retrained one?

Definition (HM the harmonic mean; A, A_r an attack's AUC on the model and on the reference):
    Priv = HM(s_loss, s_zlib, s_min_k, s_min_k_plus_plus)
    largest     s = 1 - |A - A_r| / max(A_r, 1 - A_r)
    relative    s = max(0, 1 - |A - A_r| / A_r)
    ratio       s = min(A, A_r) / max(A, A_r)

Reference: OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025).

Departs from the paper: its s could not be recovered, and public code has several. ``largest`` is
ours: 0 is as far from A_r as an AUC can be, on whichever side. The note names the variant; numbers
of different variants do not compare.

Meaning: 1: the attacks find what they find on the retrained model; 0: at least one of them finds
the opposite. Overshooting counts like undershooting. On published logs of a fine-tuned model that
forgot nothing ``ratio`` gives .381.

Example: three attacks agree with the reference; the fourth says .9 where it says .5, so s = .2.

    >>> from expunge.testing import measure
    >>> parts = {"loss": 0.5, "zlib": 0.5, "min_k": 0.5, "min_k_plus_plus": 0.9}
    >>> parts |= {f"reference_{name}": 0.5 for name in tuple(parts)}
    >>> round(measure("privacy-score", {"parts": parts}).mean, 6)
    0.5
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.numbers.harmonic import harmonic_of
from expunge.numbers.membership import privacy_score, ratio_score, relative_score

CARD = {
    "id": "privacy-score",
    "kind": "metric",
    "summary": "How close membership attacks come to what they find in a retrained model.",
    "paper": "OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025)",
    "needs": ["parts"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "none beyond its parts",
    "maturity": "beta",
    "version": 1,
}

ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
NAMES = (*ATTACKS, *(f"reference_{name}" for name in ATTACKS))
VARIANTS = {"largest": privacy_score, "relative": relative_score, "ratio": ratio_score}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What closeness is."""

    closeness: str = param(
        "largest",
        help="what the distance of the two AUCs is measured by: the largest there can be, the "
        "reference's AUC, or the larger of the two",
        choices=("largest", "relative", "ratio"),
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The harmonic mean of the closeness of four attacks.

    Args:
        scores: ``parts``: the AUC of each of `ATTACKS`, and of each on the retrained model as
            ``reference_NAME``; None where it was not measured.
        params: What closeness is.
        reference: Not used: its AUCs are parts.

    Returns:
        The mean; the parts are the closeness of each attack.
    """
    closeness = VARIANTS[params.closeness]

    def closenesses(parts: Mapping[str, float]) -> dict[str, float]:
        return {name: closeness(parts[name], parts[f"reference_{name}"]) for name in ATTACKS}

    return harmonic_of(scores, NAMES, closenesses, note=f"s: {params.closeness}")
