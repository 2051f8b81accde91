"""Membership by the least likely tokens: a text never seen has words that surprise.

Definition (y_1..y_n the tokens of a text, its end left out):
    score = -mean of the max(1, floor(k n)) lowest log p(y_t | y_<t)
    AUC = P(score(hold-out) > score(forget))     ties one half; low scores look like members

Reference: Detecting Pretraining Data from Large Language Models (2023).

Departs from the paper: at least one token is taken, where the released script takes none of a short
text and gives NaN. The paper uses k = .2; benchmarks of unlearning use .4, which is the default.

Meaning: as for the loss (1 memorised, .5 alike, the retrained model's value the true target), and
more sensitive, because one surprising word is enough. The score behind PrivLeak.

Example: of five tokens the two least likely count (k = .4): (3 + .5) / 2 and (1 + 1) / 2.

    >>> from expunge.testing import measure
    >>> forget, fresh = [[-0.1, -0.2, -3.0, -0.1, -0.5]], [[-1.0, -1.0, -1.0, -1.0, -1.0]]
    >>> value = measure("mia-min-k", {"training_logp": forget, "holdout.training_logp": fresh})
    >>> value.per_row["0"], value.beside["holdout"]["0"], value.mean
    (1.75, 1.0, 0.0)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.numbers.membership import attacked, min_k, numbers

CARD = {
    "id": "mia-min-k",
    "kind": "metric",
    "summary": "Whether the least likely tokens tell rows to forget from rows never seen (AUC).",
    "paper": "Detecting Pretraining Data from Large Language Models (2023)",
    "needs": ["training_logp", "holdout.training_logp"],
    "better": "target",
    "target": 0.5,
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "one forward pass a row",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The share of tokens, and whether different rows may be compared."""

    k: float = param(
        0.4, help="share of the tokens that count, the least likely ones", paper=0.2, low=0, high=1
    )
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
        ("training_logp",),
        lambda token_logp: min_k(token_logp, params.k),
        allow_unmatched=params.allow_unmatched,
    )


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """AUC and parts of the scores [n], beside those of hold-out rows and of the reference."""
    return numbers(rows, beside)
