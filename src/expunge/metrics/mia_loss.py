"""Membership by loss: does the model find the rows to forget easier than rows it never saw?

Definition (y_1..y_n the tokens of a text, its end left out):
    score = -(1/n) sum_t log p(y_t | y_<t)
    AUC = P(score(hold-out) > score(forget))     ties one half; low scores look like members

Reference: Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting (2018).

Departs from the paper: the attack there compares with one threshold; here all thresholds count. In
published TOFU logs this score is the loss of the answer as trained on, closing token included
(INFERRED), while the other scores leave that token out; here all do, so that text and answers are
treated alike.

Meaning: 1: every forget row is easier than every hold-out row; .5: they cannot be told apart; near
0: forgetting overshot, and the rows stand out by being hard. The retrained model's AUC, not .5, is
the true target: forget and hold-out rows may differ in topic or date. Ready-made answers that are
easy for any model fool it, which is what the attacks that normalise are for.

Example: forget rows with losses .1 and .3, hold-out rows with .2 and .4: in three of four pairs the
hold-out row has the higher loss.

    >>> from expunge.testing import measure
    >>> known, fresh = [[-0.1], [-0.3]], [[-0.2], [-0.4]]
    >>> measure("mia-loss", {"training_logp": known, "holdout.training_logp": fresh}).mean
    0.75
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.numbers.membership import attacked, mean_nll, numbers

CARD = {
    "id": "mia-loss",
    "kind": "metric",
    "summary": "Whether losses tell rows to forget from rows never seen (AUC).",
    "paper": "Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting (2018)",
    "needs": ["training_logp", "holdout.training_logp"],
    "better": "target",
    "target": 0.5,
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "one forward pass a row",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Whether different rows may be compared."""

    allow_unmatched: bool = param(
        False, help="compare with a reference that was measured on other rows"
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """AUC of this score between hold-out rows and rows to forget.

    Args:
        scores: ``training_logp`` and ``holdout.training_logp``, nats a token; or ready
            scores as ``score`` and ``holdout.score``, low for members.
        params: Whether different rows may be compared.
        reference: The same of the retrained model, whose AUC is the true target.

    Returns:
        The AUC; TPR at 1% and 0.1% FPR where there are hold-out rows enough, and with a
        reference ``auc_reference`` and the closeness ``s`` to it, among the parts.

    Raises:
        ExpungeError: E-DATA-013 when the reference was measured on other rows.
    """
    needs = ("training_logp",)
    return attacked(scores, reference, needs, mean_nll, allow_unmatched=params.allow_unmatched)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """AUC and parts of the scores [n], beside those of hold-out rows and of the reference."""
    return numbers(rows, beside)
