"""Forget degree (FIT): is as much left of the forgotten documents as in a retrained model?

Definition (Q the quality of the documents forgotten so far, see `fit-quality`):
    Q*(k) = Q_original + (Q_reference - Q_original) k / K        K requests in all
    FD_k  = max(0, 1 - |Q(k) / Q*(k) - 1|)                       0 where Q* is 0

Reference: FIT: Defying Catastrophic Forgetting in Continual LLM Unlearning (2026).

Departs from the paper: nothing. With ``requests`` = ``total``, the default, Q* is the reference's
own quality: give a model retrained without the requests so far, and no line is needed.

Meaning:
    1           as the retrained model
    0           nothing left, or twice what a retrained model has: forgetting too much costs as much
                as forgetting too little
    fooled by   a line where the truth is a curve: the ends say nothing of what lies between; three
                factors that miss on opposite sides and cancel

Example:
    >>> from expunge.testing import measure
    >>> measure("forget-degree", {"parts": {"model": 30.0, "reference": 40.0}}).mean
    0.75
    >>> parts = {"model": 39.0, "reference": 30.0, "original": 90.0}
    >>> measure("forget-degree", {"parts": parts}, requests=60).mean
    0.5
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.numbers.parity import as_retrained

CARD = {
    "id": "forget-degree",
    "kind": "metric",
    "summary": "Closeness of what is left of forgotten documents to a retrained model.",
    "paper": "FIT: Defying Catastrophic Forgetting in Continual LLM Unlearning (2026)",
    "needs": ["parts"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "none beyond the qualities it compares",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Where on the way from the original to the reference the model stands."""

    requests: int = param(300, help="requests made so far", paper="60, 120, ... 300", low=1)
    total: int = param(300, help="requests the reference was retrained without", paper=300, low=1)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Forget degree of one model.

    Args:
        scores: ``parts``: quality of the forgotten documents under ``model`` and ``reference``,
            and under ``original`` where the reference is ahead of the model.
        params: Where the model stands.
        reference: Not used.

    Returns:
        [0, 1], 1 is best; ``quality`` and ``target`` among the parts.
    """
    return as_retrained(scores, params.requests, params.total)
