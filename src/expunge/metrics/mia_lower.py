"""Membership by loss over the loss of the text in lower case: does the exact spelling matter?

Definition (y the text that was trained on, its end left out):
    score = nll(y) / nll(lower(y))
    AUC = P(score(hold-out) > score(forget))     ties one half; low scores look like members

Reference: Extracting Training Data from Large Language Models (2021).

Departs from the paper: what stands before the completion keeps its case (INFERRED: the paper has no
prompts). A text that is lower case already has score 1.

Meaning: as for the loss (1 memorised, .5 alike, the retrained model's value the true target). A
model that learned a text by heart knows its capitals too, so the text in lower case surprises it.
Rows without capitals all score 1 and carry nothing.

Example: of the forget row the lower-case form is four times as hard (score .25), of the hold-out
row hardly harder (.8).

    >>> from expunge.testing import measure
    >>> forget = {"training_logp": [[-0.5]], "lowered_nll": [2.0]}
    >>> fresh = {"holdout.training_logp": [[-0.4]], "holdout.lowered_nll": [0.5]}
    >>> measure("mia-lower", {**forget, **fresh}).mean
    1.0
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.numbers.membership import attacked, mean_nll, numbers, quotient

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "mia-lower",
    "kind": "metric",
    "summary": "Whether loss against that in lower case tells rows to forget from others (AUC).",
    "paper": "Extracting Training Data from Large Language Models (2021)",
    "needs": [
        "training_logp",
        "lowered_nll",
        "holdout.training_logp",
        "holdout.lowered_nll",
    ],
    "better": "target",
    "target": 0.5,
    "range": [0.0, 1.0],
    "roles": ["holdout"],
    "access": "logits",
    "cost": "two forward passes a row",
    "maturity": "paper",
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
    """The loss of each completion in lower case."""
    from expunge.lm.membership import for_both, lowered, text_nll

    def losses(some: "Sequence[Row]") -> list[float | None]:
        return text_nll(models.model, [lowered(row.training) for row in some])

    return for_both(rows, "lowered_nll", losses)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """AUC of this score between hold-out rows and rows to forget.

    Args:
        scores: ``training_logp``, ``lowered_nll``, both also of the hold-out rows; or ready
            scores as ``score`` and ``holdout.score``, low for members.
        params: Whether different rows may be compared.
        reference: The same of the retrained model, whose AUC is the true target.

    Returns:
        The AUC; TPR at 1% and 0.1% FPR where there are hold-out rows enough, and with a
        reference ``auc_reference`` and the closeness ``s`` to it, among the parts.

    Raises:
        ExpungeError: E-DATA-013 when the reference was measured on other rows.
    """
    needs = ("training_logp", "lowered_nll")
    return attacked(
        scores, reference, needs, loss_by_lowered, allow_unmatched=params.allow_unmatched
    )


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """AUC and parts of the scores [n], beside those of hold-out rows and of the reference."""
    return numbers(rows, beside)


def loss_by_lowered(token_logp: Sequence[float], lowered: float) -> float:
    """Mean loss of a text over that of its lower-case form."""
    return quotient(mean_nll(token_logp), lowered)
