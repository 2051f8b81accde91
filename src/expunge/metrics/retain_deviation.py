"""Retain deviation: did forgetting change how well rows to keep are told from rows never seen?

Definition (A of the model, A_r of the retrained one; z_t standardised log-probabilities):
    A  = P(a row to keep looks more like a member than a hold-out row)          ties one half
    score of a row = -mean of the max(1, floor(k n)) lowest z_t                 low for members
    RD = 100 |A - A_r| / A_r                                                    percent

Reference: DUSK: Do Not Unlearn Shared Knowledge (2025).

Departs from the paper: rows are whole texts here; the benchmark cuts them into chunks of 1024
tokens. The paper leaves the orientation of A open; this is that of its code (INFERRED).

Meaning: 0: rows to keep are as much known as to the retrained model. Unlike PrivLeak it says how
far, not in which direction; ``auc`` and ``auc_reference`` say that. Its rows are rows to keep.

Example: to the model three of four pairs show the row to keep as the known one, to the reference
all four.

    >>> from expunge.testing import measure
    >>> scores = {"score": [0.1, 0.3], "holdout.score": [0.2, 0.4]}
    >>> reference = {"score": [0.1, 0.1], "holdout.score": [0.2, 0.3]}
    >>> measure("retain-deviation", scores, reference=reference).mean
    25.0
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import unmeasurable
from expunge.numbers.membership import Sides, array_of, auc, match_sides, min_k, sides

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "retain-deviation",
    "kind": "metric",
    "summary": "How far rows to keep differ from the retrained model in looking known, in percent.",
    "paper": "DUSK: Do Not Unlearn Shared Knowledge (2025)",
    "needs": ["standardised_logp", "holdout.standardised_logp", "reference"],
    "better": "low",
    "range": [0.0, None],
    "roles": ["holdout"],
    "access": "logits",
    "cost": "one forward pass a row, on both models",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The share of tokens, and whether different rows may be compared."""

    k: float = param(
        0.4, help="share of the tokens that count, the least likely ones", paper=0.4, low=0, high=1
    )
    allow_unmatched: bool = param(
        False, help="compare with a reference that was measured on other rows"
    )


def read(
    models: "Models", rows: "Mapping[str, Sequence[Row]]", params: Params
) -> dict[str, dict[str, Any]]:
    """Standardised log-probabilities of each row's tokens."""
    from expunge.lm.membership import for_both, standardised

    def scores(some: "Sequence[Row]") -> list[list[float]]:
        return standardised(models.model, [row.training for row in some])

    return for_both(rows, "standardised_logp", scores)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Retain deviation of a model.

    Args:
        scores: ``standardised_logp`` of rows to keep and ``holdout.standardised_logp``; or ready
            scores as ``score`` and ``holdout.score``, low for members.
        params: The share of tokens.
        reference: The same of the retrained model.

    Returns:
        RD in percent; ``auc`` and ``auc_reference`` (A and A_r) are parts.

    Raises:
        ExpungeError: E-DATA-013 when the reference was measured on other rows.
    """
    if reference is None:
        return unmeasurable("it compares with a retrained reference, and none was given")
    own, expected = _sides(scores, params), _sides(reference, params)
    if own.lacking:
        return unmeasurable(own.lacking)
    if expected.lacking:
        return unmeasurable(f"of the reference, {expected.lacking}")
    match_sides(own, expected, allow_unmatched=params.allow_unmatched)
    beside = {
        "holdout": own.holdout,
        "reference": expected.forget,
        "reference_holdout": expected.holdout,
    }
    arrays = {name: array_of(table) for name, table in beside.items()}
    if not auc(arrays["reference"], arrays["reference_holdout"]):
        return unmeasurable("A_r is 0: to the reference every hold-out row looks known")
    found = aggregate(array_of(own.forget), arrays, params)
    mean = found.pop("mean")
    return Value(mean=mean, per_row=own.forget, beside=beside, parts=found, note=own.note)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """RD and both AUCs of the scores [n], beside those of hold-out rows and of the reference."""
    own = auc(rows, beside["holdout"])
    expected = auc(beside["reference"], beside["reference_holdout"])
    mean = 100 * abs(own - expected) / expected if expected else float("nan")
    return {"mean": mean, "auc": own, "auc_reference": expected}


def _sides(scores: Mapping[str, Any], params: Params) -> Sides:
    return sides(scores, ("standardised_logp",), lambda tokens: min_k(tokens, params.k))
