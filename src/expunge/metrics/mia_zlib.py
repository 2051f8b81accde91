"""Membership by loss over compressed size: easy because known, or easy because repetitive?

Definition (y the text that was trained on, its end left out):
    score = nll(y) / (bytes of zlib(y))
    AUC = P(score(hold-out) > score(forget))     ties one half; low scores look like members

Reference: Extracting Training Data from Large Language Models (2021).

Departs from the paper: none known. ``nll`` is the mean over tokens, as in the released evaluations;
on published logs the bytes are those of the bare answer, in UTF-8, at zlib's usual level.

Meaning: as for the loss (1 memorised, .5 alike, the retrained model's value the true target), with
texts that are easy for any model, because they repeat themselves, taken out. A mean over tokens
divided by a size that grows with the text makes long texts look like members: forget and hold-out
rows should be of like length.

Example: "a" compresses to 9 bytes and "ab" to 10. The hold-out row has the lower loss, .99 against
1, but not for its size: .11 against .1.

    >>> from expunge.testing import measure
    >>> forget = {"training_logp": [[-1.0]], "text": ["ab"]}
    >>> fresh = {"holdout.training_logp": [[-0.99]], "holdout.text": ["a"]}
    >>> measure("mia-zlib", {**forget, **fresh}).mean
    1.0
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.numbers.membership import attacked, mean_nll, numbers

CARD = {
    "id": "mia-zlib",
    "kind": "metric",
    "summary": "Whether losses over zlib sizes tell rows to forget from rows never seen (AUC).",
    "paper": "Extracting Training Data from Large Language Models (2021)",
    "needs": ["training_logp", "text", "holdout.training_logp", "holdout.text"],
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
    """Whether different rows may be compared."""

    allow_unmatched: bool = param(
        False, help="compare with a reference that was measured on other rows"
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """AUC of this score between hold-out rows and rows to forget.

    Args:
        scores: ``training_logp`` in nats a token and ``text``, both also of the hold-out rows; or
            ready scores as ``score`` and ``holdout.score``, low for members.
        params: Whether different rows may be compared.
        reference: The same of the retrained model, whose AUC is the true target.

    Returns:
        The AUC; TPR at 1% and 0.1% FPR where there are hold-out rows enough, and with a
        reference ``auc_reference`` and the closeness ``s`` to it, among the parts.

    Raises:
        ExpungeError: E-DATA-013 when the reference was measured on other rows.
    """
    needs = ("training_logp", "text")
    return attacked(scores, reference, needs, loss_by_size, allow_unmatched=params.allow_unmatched)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """AUC and parts of the scores [n], beside those of hold-out rows and of the reference."""
    return numbers(rows, beside)


def loss_by_size(token_logp: Sequence[float], text: str) -> float:
    """Mean loss in nats over the bytes that zlib needs for the text."""
    return mean_nll(token_logp) / len(zlib.compress(text.encode()))
