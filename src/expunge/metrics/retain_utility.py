"""Retain utility (FIT): are the documents not asked for known as a retrained model knows them?

Definition (Q the quality of the documents still to be kept, see `fit-quality`):
    Q*(k) = Q_original + (Q_reference - Q_original) k / K        K requests in all
    RU_k  = max(0, 1 - |Q(k) / Q*(k) - 1|)                       0 where Q* is 0

Reference: FIT: Defying Catastrophic Forgetting in Continual LLM Unlearning (2026).

Departs from the paper: nothing. The published driver swaps two of the six factors, so numbers it
printed do not compare with these; ``compat`` of the benchmark `pch` repeats that.

Meaning:
    1           as the retrained model
    0           nothing kept, or twice what a retrained model has
    fooled by   relearning: a model that is pushed beyond the retrained one on kept documents loses
                here, though nobody is harmed; read ``quality`` and ``target`` among the parts

Example:
    >>> from expunge.testing import measure
    >>> measure("retain-utility", {"parts": {"model": 60.0, "reference": 40.0}}).mean
    0.5
    >>> measure("retain-utility", {"parts": {"model": 90.0, "reference": 40.0}}).mean
    0.0
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.numbers.parity import as_retrained

CARD = {
    "id": "retain-utility",
    "kind": "metric",
    "summary": "Closeness of what is kept of other documents to a retrained model.",
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
    """Retain utility of one model.

    Args:
        scores: ``parts``: quality of the kept documents under ``model`` and ``reference``, and
            under ``original`` where the reference is ahead of the model.
        params: Where the model stands.
        reference: Not used.

    Returns:
        [0, 1], 1 is best; ``quality`` and ``target`` among the parts.
    """
    return as_retrained(scores, params.requests, params.total)
