"""PrivLeak: can an attacker tell from the model that it once knew the rows, or was made to forget?

Definition (A of the model, A_r of the retrained one; scores low for members):
    A        = P(a hold-out row looks more like a member than a forget row)     ties one half
    score    = -mean of the max(1, floor(k n)) lowest log p(y_t), or of their standardised form
    PrivLeak = 100 (A - A_r) / (A_r + 1e-10)                                    percent

Reference: MUSE: Machine Unlearning Six-Way Evaluation (2024); DUSK: Do Not Unlearn Shared
Knowledge (2025) for the standardised form.

Departs from the paper: none in the number. Without a retrained model it is not measurable, unless
a value of A_r is chosen with ``against=constant``: .5, which published evaluations fall back on, or
that of a model others retrained (MUSE: .4772 for news, .5393 for books, Min-40%).

Meaning: 0: membership shows no more than in the retrained model. Near -100: every forget row still
looks like a member. Above 0: the rows stand out by being hard, so that forgetting itself can be
seen; up to about +100, more where A_r is below a half. Within 5 of 0 is called good. A small A_r
inflates it: read the closeness ``s`` of the attack beside it.

Example: in three of four pairs the hold-out row has the higher score (A = .25), on the reference in
two (A_r = .5).

    >>> from expunge.testing import measure
    >>> scores = {"score": [0.1, 0.3], "holdout.score": [0.2, 0.4]}
    >>> reference = {"score": [0.1, 0.4], "holdout.score": [0.2, 0.3]}
    >>> round(measure("privleak", scores, reference=reference).mean, 6)
    -50.0
    >>> round(measure("privleak", scores, against="constant", constant=0.4772).mean, 6)
    -47.611065
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import unmeasurable
from expunge.numbers.membership import (
    Sides,
    array_of,
    auc,
    match_sides,
    min_k,
    privacy_leakage,
    sides,
)

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "privleak",
    "kind": "metric",
    "summary": "How far membership shows beyond the retrained model, in percent of it.",
    "paper": "MUSE: Machine Unlearning Six-Way Evaluation (2024)",
    "needs": ["training_logp", "holdout.training_logp", "reference"],
    "better": "target",
    "target": 0.0,
    "range": [-100.0, None],
    "roles": ["holdout"],
    "access": "logits",
    "cost": "one forward pass a row, on both models",
    "maturity": "beta",
    "version": 1,
}

READINGS = {"min-k": "training_logp", "min-k-plus-plus": "standardised_logp"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The score, and what stands for the retrained model."""

    score: str = param(
        "min-k",
        help="log-probabilities of the least likely tokens, or the same standardised (DUSK)",
        paper="min-k",
        choices=("min-k", "min-k-plus-plus"),
    )
    k: float = param(
        0.4, help="share of the tokens that count, the least likely ones", paper=0.4, low=0, high=1
    )
    against: str = param(
        "reference",
        help="where A_r comes from: the retrained reference, or a constant",
        paper="reference",
        choices=("reference", "constant"),
    )
    constant: float = param(
        0.5, help="A_r with against=constant", paper="news 0.4772, books 0.5393", low=0, high=1
    )
    allow_unmatched: bool = param(
        False, help="compare with a reference that was measured on other rows"
    )


def read(
    models: "Models", rows: "Mapping[str, Sequence[Row]]", params: Params
) -> dict[str, dict[str, Any]]:
    """Standardised log-probabilities, where they are the score."""
    from expunge.lm.membership import for_both, standardised

    if params.score == "min-k":
        return {}

    def scores(some: "Sequence[Row]") -> list[list[float]]:
        return standardised(models.model, [row.training for row in some])

    return for_both(rows, READINGS[params.score], scores)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """PrivLeak of a model.

    Args:
        scores: ``training_logp`` and ``holdout.training_logp`` (``standardised_logp`` with that
            score); or ready scores as ``score`` and ``holdout.score``, low for members.
        params: The score, and what stands for the retrained model.
        reference: The same of the retrained model.

    Returns:
        PrivLeak in percent; ``auc`` and ``auc_reference`` (1 memorised, so ``1 - A``) are parts.

    Raises:
        ExpungeError: E-DATA-013 when the reference was measured on other rows.
    """
    own = _sides(scores, params)
    if own.lacking:
        return unmeasurable(own.lacking)
    beside, notes = {"holdout": own.holdout}, [own.note]
    if params.against == "constant":
        notes.append(f"A_r is taken to be {params.constant:g}: no retrained model was looked at")
    elif reference is None:
        return unmeasurable("it compares with a retrained reference, and none was given")
    else:
        expected = _sides(reference, params)
        if expected.lacking:
            return unmeasurable(f"of the reference, {expected.lacking}")
        match_sides(own, expected, allow_unmatched=params.allow_unmatched)
        beside |= {"reference": expected.forget, "reference_holdout": expected.holdout}
    found = aggregate(array_of(own.forget), {n: array_of(of) for n, of in beside.items()}, params)
    mean = found.pop("mean")
    if not math.isfinite(mean):
        return unmeasurable("A_r is 0: to the reference every forget row looks like a member")
    note = "; ".join(filter(None, notes))
    return Value(mean=mean, per_row=own.forget, beside=beside, parts=found, note=note)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """PrivLeak and both AUCs of the scores [n], beside those of hold-out rows and reference."""
    own, expected = auc(rows, beside["holdout"]), 1 - params.constant
    if params.against == "reference":
        expected = auc(beside["reference"], beside["reference_holdout"])
    return {"mean": privacy_leakage(own, expected), "auc": own, "auc_reference": expected}


def _sides(scores: Mapping[str, Any], params: Params) -> Sides:
    needs = (READINGS[params.score],)
    return sides(scores, needs, lambda tokens: min_k(tokens, params.k))
