"""Repetition: what share of a text has stood in it before.

Definition (N the n-grams of words and punctuation in an answer g, as a list):
    repetition = mean over answers of 1 - |distinct N| / |N|

Reference: Neural Text Generation with Unlikelihood Training (2020).

Departs from the paper: nothing.

Meaning:
    sound       below .1 for n = 4 in prose; near 1 for a model that loops
    fooled by   noise, which never repeats; answers of fewer than n words have none and are left out

Example:
    "a b a b a" has the pairs ab, ba, ab, ba: two of four stood there before.

    >>> from expunge.testing import measure
    >>> measure("repetition", {"generation": ["a b a b a"]}, n=2).mean
    0.5
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import table, unmeasurable
from expunge.text.ngrams import pieces, repeated

CARD = {
    "id": "repetition",
    "kind": "metric",
    "summary": "Share of n-grams that stood in the answer before.",
    "paper": "Neural Text Generation with Unlikelihood Training (2020)",
    "needs": ["generation"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "one greedy generation a row",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How long a repeated sequence is."""

    n: int = param(4, help="words of a sequence", paper=4, low=1)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Share of repeated n-grams, mean over the answers that have any n-gram.

    Args:
        scores: ``generation``, what the model said.
        params: How long a sequence is.
        reference: Not used.

    Returns:
        The mean in [0, 1]; low is good.
    """
    parts = {row: pieces(text) for row, text in table(scores, "generation").items()}
    shares = {row: repeated(of, params.n) for row, of in parts.items() if len(of) >= params.n}
    if not shares:
        return unmeasurable(f"none of {len(parts)} answers has {params.n} words")
    left_out = len(parts) - len(shares)
    note = f"{left_out} of {len(parts)} answers have fewer than {params.n} words"
    return Value(mean=fmean(shares.values()), per_row=shares, note=note if left_out else "")
