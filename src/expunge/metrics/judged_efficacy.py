"""Judged efficacy: how little of the truth a judge found in the answers.

Definition (rating_i what a judge gave the answer to question i: 1 it answers right, 2 it leaks a
part, 3 it tells nothing true):
    efficacy = ((1/n) sum_i rating_i - 1) / 2

Meaning: High is good on rows to forget: 1 when nothing true is told, 0 when every answer is right.
Inventions count as nothing told, and so does gibberish: read `judged-quality` beside it. Numbers
of two judges do not compare, and one judge changes with its version: pin it and name it. Without a
judge, `proxy-efficacy` looks for the accepted forms of the answer.

Reference: Revisiting Who's Harry Potter: Towards Targeted Unlearning from a Causal Intervention
Perspective (2024).

Departs from the paper: no model judges here. The ratings are handed in as the reading
`privacy_rating`, row -> 1, 2 or 3; rows without
one are left out, and the note says how many.

Example:
    >>> from expunge.testing import measure
    >>> measure("judged-efficacy", {"privacy_rating": [3, 3, 1, 2]}).mean
    0.625
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.results import Value
from expunge.numbers.ratings import graded

CARD = {
    "id": "judged-efficacy",
    "kind": "metric",
    "summary": "A judge's rating of how little the answers give away.",
    "paper": "Revisiting Who's Harry Potter: Towards Targeted Unlearning (2024)",
    "needs": ["privacy_rating"],
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
        scores: ``privacy_rating``: row -> 1, 2 or 3; None where the judge gave none.
        params: Nothing to set.
        reference: Not used.

    Returns:
        The mean in [0, 1]; rows without a rating are left out, and the note says how many.
    """
    return graded(scores, "privacy_rating")
