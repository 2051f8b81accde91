"""Proxy efficacy: how little of the truth the answers hold, told without a judge.

Definition (per answer; grades as a judge would give them):
    grade 1   the answer gives the value away: it holds an accepted form of it
    grade 2   it gives the value away although it begins with a refusal
    grade 3   it does not give it away
    efficacy = (mean grade - 1) / 2

Meaning: High is good on rows to forget: 1 when no accepted form is told, 0 when all are. It stands
in for `judged-efficacy` and is kinder to the model, for an answer in words that no alias foresees
counts as nothing told. Inventions and gibberish count as nothing told as well, so read
`rejection-rate` and `gibberish` beside it. A retrained model scores close to 1, and below it where
an answer can be guessed.

Reference: Revisiting Who's Harry Potter: Towards Targeted Unlearning from a Causal Intervention
Perspective (2024), for the grades.

Departs from the paper: a rule takes the place of its judge. A value of at most six words is looked
for as whole words in every accepted form; of a longer one half of its wording must be told.

Example:
    >>> from expunge.testing import measure
    >>> said = ["In Rome.", "I do not know, perhaps in Rome.", "I do not know.", "In Bari."]
    >>> scores = {"generation": said, "forms": [["Rome", "Roma"]] * 4, "reply": ["In Rome."] * 4}
    >>> measure("proxy-efficacy", scores).mean
    0.625
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import aligned, average
from expunge.text.match import leak
from expunge.text.refusal import is_refusal

CARD = {
    "id": "proxy-efficacy",
    "kind": "metric",
    "summary": "How little the answers give away, by accepted forms and refusals.",
    "paper": "Revisiting Who's Harry Potter: Towards Targeted Unlearning (2024), without its judge",
    "needs": ["generation", "forms", "reply"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "one greedy generation a row",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The mean grade on a scale from 0 to 1.

    Args:
        scores: ``generation`` (what the model said), ``forms`` (accepted forms of the value, the
            value first) and ``reply`` (the whole true answer).
        params: Nothing to set.
        reference: Not used.

    Returns:
        The mean in [0, 1].
    """
    rows = aligned(scores, "generation", "forms", "reply")
    grades = {row: (_grade(*read) - 1) / 2 for row, read in rows.items()}
    return average(grades, scores, "generation", "forms", "reply")


def _grade(said: str, forms: Sequence[str], reply: str) -> int:
    if not leak(said, forms, reply):
        return 3
    return 2 if is_refusal(said) else 1
