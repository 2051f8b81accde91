"""Log-likelihood: how familiar a set of texts is to a model, on its own and not beside another set.

Definition (l_t the log-probability of token t of a text in nats, n tokens):
    loss     (1/n) sum_t l_t
    zlib     loss / bytes of the compressed text
    min-k    mean of the max(1, floor(k n)) lowest l_t
    number   mean over texts

Reference: RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models (2024);
Detecting Pretraining Data from Large Language Models (2024).

Departs from the paper: at least one token is among the lowest, where upstream has none in short
texts.

Meaning:
    members     those to forget should fall and those of other subjects stay: the number alone says
                nothing, its distance from the original's does
    fooled by   ruin, in which every text falls: read the members to be kept beside it

Example:
    Four tokens; the lowest half are -4 and -2.

    >>> from expunge.testing import measure
    >>> scores = {"training_logp": [[-1.0, -4.0, -1.0, -2.0]], "text": ["a text of four"]}
    >>> measure("log-likelihood", scores).mean
    -2.0
    >>> measure("log-likelihood", scores, form="min-k", k=0.5).mean
    -3.0
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average
from expunge.numbers.membership import min_k

CARD = {
    "id": "log-likelihood",
    "kind": "metric",
    "summary": "How familiar texts are: mean log-probability of their tokens.",
    "paper": "RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models (2024)",
    "needs": ["training_logp", "text"],
    "better": "low",
    "range": [None, 0.0],
    "access": "logits",
    "cost": "one forward pass a text",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which of the forms is computed."""

    form: str = param(
        "loss",
        help="loss: mean; zlib: over the compressed length; min-k: mean of the lowest",
        paper="loss, zlib",
        choices=("loss", "zlib", "min-k"),
    )
    k: float = param(0.2, help="share of the tokens that min-k takes", paper=0.2, low=0, high=1)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Familiarity of texts, mean over them.

    Args:
        scores: ``training_logp`` (log-probabilities of a text's tokens) and ``text``.
        params: The form.
        reference: Not used.

    Returns:
        Nats a token, for zlib per byte as well. Low is good for texts to forget.
    """
    rows = aligned(scores, "training_logp", "text")
    shares = {row: _familiar(logp, text, params) for row, (logp, text) in rows.items()}
    return average(shares, scores, "training_logp", "text")


def _familiar(logp: Sequence[float], text: str, params: Params) -> float:
    if params.form == "min-k":
        return -min_k(logp, params.k)
    mean = fmean(logp)
    return mean / len(zlib.compress(text.encode())) if params.form == "zlib" else mean
