"""Membership by the least likely tokens, each against what the model expects at its place.

Definition (p_t the model's distribution at token t; mu_t, sigma_t of log p_t(v) for v ~ p_t):
    z_t   = (log p_t(y_t) - mu_t) / sigma_t
    score = -mean of the max(1, floor(k n)) lowest z_t
    AUC = P(score(hold-out) > score(forget))     ties one half; low scores look like members

Reference: Min-K%++: Improved Baseline for Detecting Pre-Training Data from Large Language Models
(2024).

Departs from the paper: at least one token is taken; sigma squared is at least 1e-6, so that a token
the model is certain of has z = 0 (INFERRED). k = .4 as in benchmarks of unlearning.

Meaning: as for the loss (1 memorised, .5 alike, the retrained model's value the true target). A
token that is unlikely only because many others would do too is not held against the row.

Example: probabilities .7, .1, .1, .1 have mu = -.9404 and sigma = .8917, so the first token has z =
.6547 and any other -1.5275; with k = .4 the lowest of two tokens counts.

    >>> from expunge.testing import measure
    >>> forget, fresh = [[0.6547, 0.6547]], [[0.6547, -1.5275]]
    >>> scores = {"standardised_logp": forget, "holdout.standardised_logp": fresh}
    >>> value = measure("mia-min-k-plus-plus", scores)
    >>> value.per_row["0"], value.beside["holdout"]["0"], value.mean
    (-0.6547, 1.5275, 1.0)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.numbers.membership import attacked, min_k, numbers

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "mia-min-k-plus-plus",
    "kind": "metric",
    "summary": "Whether standardised token probabilities tell rows to forget from others (AUC).",
    "paper": (
        "Min-K%++: Improved Baseline for Detecting Pre-Training Data from Large "
        "Language Models (2024)"
    ),
    "needs": ["standardised_logp", "holdout.standardised_logp"],
    "better": "target",
    "target": 0.5,
    "range": [0.0, 1.0],
    "roles": ["holdout"],
    "access": "logits",
    "cost": "one forward pass a row",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The share of tokens, and whether different rows may be compared."""

    k: float = param(
        0.4, help="share of the tokens that count, the least likely ones", low=0, high=1
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
    """AUC of this score between hold-out rows and rows to forget.

    Args:
        scores: ``standardised_logp`` and ``holdout.standardised_logp``, a list a row; or ready
            scores as ``score`` and ``holdout.score``, low for members.
        params: The share of tokens.
        reference: The same of the retrained model, whose AUC is the true target.

    Returns:
        The AUC; TPR at 1% and 0.1% FPR where there are hold-out rows enough, and with a
        reference ``auc_reference`` and the closeness ``s`` to it, among the parts.

    Raises:
        ExpungeError: E-DATA-013 when the reference was measured on other rows.
    """
    return attacked(
        scores,
        reference,
        ("standardised_logp",),
        lambda standardised: min_k(standardised, params.k),
        allow_unmatched=params.allow_unmatched,
    )


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """AUC and parts of the scores [n], beside those of hold-out rows and of the reference."""
    return numbers(rows, beside)
