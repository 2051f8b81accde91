"""Membership by gradient: a text that was learned leaves little to learn.

Definition (W_1..W_m the weight tensors; y the text that was trained on, its end left out):
    score = (1/m) sum_j |d nll(y) / d W_j|_2
    AUC = P(score(hold-out) > score(forget))     ties one half; low scores look like members

Reference: Pandora's White-Box: Precise Training Data Detection and Extraction in Large Language
Models (2024).

Departs from the paper: the released script switches to training mode, so that dropout adds noise;
here the model stays in evaluation mode. Weights that are frozen beside others that are not, and
quantised ones, have no gradient and are left out.

Meaning: as for the loss (1 memorised, .5 alike, the retrained model's value the true target). It
needs the weights. Compare models of one kind only: an adapter's gradients are not those of full
weights.

Example: gradients of .2 and .6 on forget rows, of .5 and .9 on hold-out rows.

    >>> from expunge.testing import measure
    >>> measure("mia-gradnorm", {"grad_norm": [0.2, 0.6], "holdout.grad_norm": [0.5, 0.9]}).mean
    0.75
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.numbers.membership import attacked, numbers

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "mia-gradnorm",
    "kind": "metric",
    "summary": "Whether gradient norms tell rows to forget from rows never seen (AUC).",
    "paper": (
        "Pandora's White-Box: Precise Training Data Detection and Extraction in Large "
        "Language Models (2024)"
    ),
    "needs": ["grad_norm", "holdout.grad_norm"],
    "better": "target",
    "target": 0.5,
    "range": [0.0, 1.0],
    "roles": ["holdout"],
    "access": "weights",
    "cost": "one forward and one backward pass a row",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Whether different rows may be compared."""

    allow_unmatched: bool = param(
        False, help="compare with a reference that was measured on other rows"
    )


def read(
    models: "Models", rows: "Mapping[str, Sequence[Row]]", params: Params
) -> dict[str, dict[str, Any]]:
    """The gradient norm of each row, one row at a time."""
    from expunge.lm.membership import for_both, gradient_norms

    def norms(some: "Sequence[Row]") -> list[float | None]:
        return gradient_norms(models.model, [row.training for row in some])

    return for_both(rows, "grad_norm", norms)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """AUC of this score between hold-out rows and rows to forget.

    Args:
        scores: ``grad_norm`` and ``holdout.grad_norm``; or ready
            scores as ``score`` and ``holdout.score``, low for members.
        params: Whether different rows may be compared.
        reference: The same of the retrained model, whose AUC is the true target.

    Returns:
        The AUC; TPR at 1% and 0.1% FPR where there are hold-out rows enough, and with a
        reference ``auc_reference`` and the closeness ``s`` to it, among the parts.

    Raises:
        ExpungeError: E-DATA-013 when the reference was measured on other rows.
    """
    needs = ("grad_norm",)
    return attacked(scores, reference, needs, float, allow_unmatched=params.allow_unmatched)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """AUC and parts of the scores [n], beside those of hold-out rows and of the reference."""
    return numbers(rows, beside)
