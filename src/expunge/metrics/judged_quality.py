"""Judged quality: how fitting a judge found the answers, true or not.

Definition (rating_i what a judge gave the answer to question i: 1 gibberish or beside the point,
2 flawed, 3 fluent and on the point, refusals included):
    quality = ((1/n) sum_i rating_i - 1) / 2

Meaning: High is good everywhere: a refusal or a fluent invention is fitting on rows to forget,
noise is not. The judge must not know who is asked about, or it marks inventions down: mask the
names first, as `expunge.text.judging` does. Numbers of two judges do not compare: pin the judge and
name it. Without a judge, `gibberish` tells noise from language.

Reference: Revisiting Who's Harry Potter: Towards Targeted Unlearning from a Causal Intervention
Perspective (2024).

Departs from the paper: no model judges here. The ratings are handed in as the reading
`quality_rating`, row -> 1, 2 or 3; rows without
one are left out, and the note says how many.

Example:
    >>> from expunge.testing import measure
    >>> measure("judged-quality", {"quality_rating": [3, 3, 1, 2]}).mean
    0.625
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.results import Value
from expunge.numbers.ratings import graded

CARD = {
    "id": "judged-quality",
    "kind": "metric",
    "summary": "A judge's rating of how fitting the answers are.",
    "paper": "Revisiting Who's Harry Potter: Towards Targeted Unlearning (2024)",
    "needs": ["quality_rating"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "one greedy generation and one judgement a row",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The mean rating on a scale from 0 to 1.

    Args:
        scores: ``quality_rating``: row -> 1, 2 or 3; None where the judge gave none.
        params: Nothing to set.
        reference: Not used.

    Returns:
        The mean in [0, 1]; rows without a rating are left out, and the note says how many.
    """
    return graded(scores, "quality_rating")
