"""Knowledge forgetting rate: in how many answers the true entities are gone or contradicted.

Definition (per row; ECS the share of the true answer's entities that the answer names):
    KFR = (1/n) sum_i [ECS_i < c1  or  the answer contradicts the true one]

Meaning: High is good on rows to forget; a retrained model scores high there too, since it cannot
name what it never saw. Silence and gibberish name no entity and score 1, so read it beside
`refusal-quality` or a measure of fluency. Whether two texts contradict one another is for a judge:
its verdicts may be given as the reading `contradicts` (row -> true or false), and without them the
number rests on entities alone, as the note says.

Reference: DRAGON: Guard LLM Unlearning in Context via Negative Detection and Reasoning (2025);
entity coverage as in ReLearn: Unlearning via Learning for Large Language Models (2025).

Departs from the paper: the threshold is not stated there, .3 is ours; entities are the accepted
forms of a short answer, or names and figures of a longer one by a rule (INFERRED: the paper does
not say how they are found); no model judges contradictions here.

Example:
    >>> from expunge.testing import measure
    >>> said = ["Born in Rome.", "I do not know.", "Not in Rome but in Bari."]
    >>> scores = {"generation": said, "forms": [["Rome"], ["Rome"], ["Rome"]]}
    >>> round(measure("knowledge-forgetting", scores).mean, 4)
    0.3333
    >>> judged = {**scores, "contradicts": [False, False, True]}
    >>> round(measure("knowledge-forgetting", judged).mean, 4)
    0.6667
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.text.coverage import covered

CARD = {
    "id": "knowledge-forgetting",
    "kind": "metric",
    "summary": "Share of answers that no longer name what the true one names.",
    "paper": "DRAGON: Guard LLM Unlearning in Context via Negative Detection and Reasoning (2025)",
    "needs": ["generation", "forms"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "one greedy generation a row",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How much must be named."""

    threshold: float = param(
        0.3,
        help="c1: coverage below this is forgotten",
        paper="not stated",
        low=0.0,
        high=1.0,
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Share of answers without the true entities, or against them.

    Args:
        scores: ``generation`` (what the model said), ``forms`` (the true answer and its other
            forms), and ``contradicts`` where a judge was asked.
        params: How much must be named.
        reference: Not used.

    Returns:
        The mean in [0, 1], with the mean ``coverage`` and the rate of ``contradictions`` (where
        judged) among the parts.
    """

    def counts(share: float, against: bool) -> bool:
        return share < params.threshold or against

    return covered(scores, counts, f"counted below a coverage of {params.threshold:g}")


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The share [n], and the parts beside it."""
    return {"mean": float(rows.mean()), **{n: float(each.mean()) for n, each in beside.items()}}
