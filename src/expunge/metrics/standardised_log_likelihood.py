"""Standardised log-likelihood: familiarity against what the model expects, on one set of texts.

Definition (p_t the model's distribution at token t; mu_t, sigma_t of log p_t(v) for v ~ p_t):
    z_t     = (log p_t(y_t) - mu_t) / sigma_t
    number  = mean over texts of the mean of the max(1, floor(k n)) lowest z_t

Reference: RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models (2024);
Min-K%++: Improved Baseline for Detecting Pre-Training Data from Large Language Models (2024).

Departs from the paper: at least one token is taken. What the code of RWKU stores as ``mink20`` is
this with k = .2, and not min-k.

Meaning:
    members     those to forget should fall and those of other subjects stay; compare with the
                original
    fooled by   ruin, in which every text falls: read the members to be kept beside it

Example:
    Of four tokens the lowest half have -2 and -1.

    >>> from expunge.testing import measure
    >>> scores = {"standardised_logp": [[0.5, -2.0, 0.5, -1.0]]}
    >>> measure("standardised-log-likelihood", scores, k=0.5).mean
    -1.5
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import average, table
from expunge.numbers.membership import min_k

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "standardised-log-likelihood",
    "kind": "metric",
    "summary": "How familiar texts are by their least expected tokens (Min-K%++).",
    "paper": "RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models (2024)",
    "needs": ["standardised_logp"],
    "better": "low",
    "range": [None, None],
    "access": "logits",
    "cost": "one forward pass a text",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How many tokens count."""

    k: float = param(0.2, help="share of the tokens, the lowest ones", paper=0.2, low=0, high=1)


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, Mapping[str, Any]]:
    """Standardised log-probabilities of each text's tokens."""
    from expunge.lm.membership import standardised

    texts = rows.get("", ())
    found = standardised(models.model, [row.training for row in texts])
    return {"standardised_logp": {row.id: z for row, z in zip(texts, found, strict=True)}}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Familiarity of texts, mean over them.

    Args:
        scores: ``standardised_logp``, a list a text.
        params: How many tokens count.
        reference: Not used.

    Returns:
        Standard deviations; low is good for texts to forget.
    """
    rows = table(scores, "standardised_logp")
    shares = {row: -min_k(z, params.k) for row, z in rows.items()}
    return average(shares, scores, "standardised_logp")
