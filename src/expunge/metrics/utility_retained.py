"""Utility retained: what share of the original's scores a model keeps, over several abilities.

Definition (abilities b = 1..m; u_b the model's score on b, o_b the original's):
    UT = (1/m) sum_b u_b / o_b

Reference: LLM Unlearning Under the Microscope (2025).

Departs from the paper: INFERRED: the paper averages raw scores; the ratio to the original is ours,
and the raw scores stand among the parts. The paper's abilities are MMLU, TruthfulQA and MathQA for
choice, IFEval and GSM8K for writing; those that were not measured are named.

Meaning:
    1           nothing lost; above 1: better than the original, which forgetting rarely causes
    fooled by   floors: a score at chance counts as utility, so look at the parts

Example:
    One ability kept whole, another halved.

    >>> from expunge.testing import measure
    >>> parts = {"mmlu": 0.6, "original mmlu": 0.6, "gsm8k": 0.1, "original gsm8k": 0.2}
    >>> measure("utility-retained", {"parts": parts}).mean
    0.75
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import asked, table, unmeasurable

CARD = {
    "id": "utility-retained",
    "kind": "metric",
    "summary": "Share of the original's scores that a model keeps.",
    "paper": "LLM Unlearning Under the Microscope (2025)",
    "needs": ["parts"],
    "better": "high",
    "range": [0.0, None],
    "access": "logits",
    "cost": "none beyond its parts",
    "maturity": "paper",
    "version": 1,
}

BEFORE = "original "
"""What stands before the name of an ability in the parts for the original's score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Mean ratio over the abilities that both models were measured on.

    Args:
        scores: ``parts``: name of an ability -> the model's score, ``original NAME`` -> the
            original's; None where it was not measured.
        params: Nothing to set.
        reference: Not used.

    Returns:
        The ratio, 1 where nothing was lost; the raw scores among the parts, and a note naming the
        abilities left out.
    """
    parts = table(scores, "parts")
    names = [name for name in asked(scores, "parts") if not name.startswith(BEFORE)]
    both = [name for name in names if name in parts and parts.get(BEFORE + name, 0) > 0]
    if not both:
        return unmeasurable("no ability was measured on the model and, above 0, on the original")
    left_out = [name for name in names if name not in both]
    note = f"without {', '.join(left_out)}, not measured or 0 in the original" if left_out else ""
    ratio = fmean(parts[name] / parts[BEFORE + name] for name in both)
    return Value(mean=ratio, parts=parts, note=note)
