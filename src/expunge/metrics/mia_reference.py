"""Membership by another model: does this model find the row easier than one that never saw it?

Definition (y the text that was trained on, its end left out; M_c the model to compare with):
    score = nll(y) - nll_c(y)
    AUC = P(score(hold-out) > score(forget))     ties one half; low scores look like members

Reference: Extracting Training Data from Large Language Models (2021).

Departs from the paper: the difference of two mean losses instead of their ratio, as in released
evaluations of unlearning. M_c is the base model, from before it learned any of the rows, or the
retrained one (``against=reference``).

Meaning: as for the loss (1 memorised, .5 alike), with all that makes a text easy for any model
taken out: the sharpest of the attacks that need no weights, if M_c is of the same family. Against
the base model the retrained model's AUC is the true target. Against the retrained model itself .5
is: that model scores 0 on every row.

Example: on the forget row the model is 1.5 nats a token below the base model, on the hold-out row
.1.

    >>> from expunge.testing import measure
    >>> forget = {"training_logp": [[-0.5]], "base:training_logp": [[-2.0]]}
    >>> fresh = {"holdout.training_logp": [[-1.0]], "base:holdout.training_logp": [[-1.1]]}
    >>> measure("mia-reference", {**forget, **fresh}).mean
    1.0
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import unmeasurable
from expunge.numbers.membership import attacked, mean_nll, numbers

CARD = {
    "id": "mia-reference",
    "kind": "metric",
    "summary": "Whether losses against another model's tell rows to forget from others (AUC).",
    "paper": "Extracting Training Data from Large Language Models (2021)",
    "needs": [
        "training_logp",
        "base:training_logp",
        "holdout.training_logp",
        "base:holdout.training_logp",
    ],
    "better": "target",
    "target": 0.5,
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "one forward pass a row, on both models",
    "maturity": "beta",
    "version": 1,
}

NEEDS = ("training_logp", "base:training_logp")
OF_OTHER = {
    "base:training_logp": "training_logp",
    "base:holdout.training_logp": "holdout.training_logp",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The model to compare with, and whether different rows may be compared."""

    against: str = param(
        "base",
        help="the model whose loss is subtracted: base, or the retrained reference",
        choices=("base", "reference"),
    )
    allow_unmatched: bool = param(
        False, help="compare with a reference that was measured on other rows"
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """AUC of this score between hold-out rows and rows to forget.

    Args:
        scores: ``training_logp`` and, of the base model, ``base:training_logp``, both also of
            the hold-out rows; or ready scores as ``score`` and ``holdout.score``.
        params: The model to compare with.
        reference: The same of the retrained model. Its own base readings may be left out: the
            base model is the same.

    Returns:
        The AUC; TPR at 1% and 0.1% FPR where there are hold-out rows enough, and with a
        reference to compare with beside the base model ``auc_reference`` and ``s``, among the
        parts.

    Raises:
        ExpungeError: E-DATA-013 when the reference was measured on other rows.
    """
    if params.against == "reference":
        return _against_reference(scores, reference)
    base = {name: scores[name] for name in OF_OTHER if name in scores}
    expected = None if reference is None else base | dict(reference)
    return attacked(scores, expected, NEEDS, loss_beyond, allow_unmatched=params.allow_unmatched)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """AUC and parts of the scores [n], beside those of hold-out rows and of the reference."""
    return numbers(rows, beside)


def loss_beyond(token_logp: Sequence[float], other: Sequence[float]) -> float:
    """How much higher the loss of one model is than that of the other, in nats a token."""
    return mean_nll(token_logp) - mean_nll(other)


def _against_reference(scores: Mapping[str, Any], reference: Mapping[str, Any] | None) -> Value:
    if reference is None:
        return unmeasurable("it compares with a retrained reference, and none was given")
    other = {name: reference[of] for name, of in OF_OTHER.items() if of in reference}
    own = {name: values for name, values in scores.items() if name not in OF_OTHER}
    return replace(
        attacked(own | other, None, NEEDS, loss_beyond),
        note="compared with the retrained reference itself, so .5 is the aim",
    )
