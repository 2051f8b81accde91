"""Answer F1: how much of the true answer's wording is said, and how much else.

Definition (g, y the words of the greedy answer and of an accepted form; both as multisets):
    precision = |g and y| / |g|     recall = |g and y| / |y|     F1 = 2 |g and y| / (|g| + |y|)
    answer F1 = mean over rows of the largest F1 over the accepted forms

Reference: SQuAD: 100,000+ Questions for Machine Comprehension of Text (2016); TriviaQA: A Large
Scale Distantly Supervised Challenge Dataset for Reading Comprehension (2017).

Departs from the paper: an answer that is only an article or punctuation is compared as it stands.

Meaning: 1 is an answer that says one of the accepted forms and nothing else. It asks for short
answers: one of thirty words that names the right form gets little, so a model that has become
talkative seems to have forgotten. Read it beside the share of answers that contain a form.

Example:
    "old town of Bern" shares one word of four with "Bern": 2 * 1 / (4 + 1).

    >>> from expunge.testing import measure
    >>> said = ["the old town of Bern"]
    >>> measure("answer-f1", {"generation": said, "forms": [["Bern", "X"]]}).mean
    0.4
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import aligned, average
from expunge.text.final import best_f1

CARD = {
    "id": "answer-f1",
    "kind": "metric",
    "summary": "Overlap of the written answer with the best accepted form.",
    "paper": "SQuAD: 100,000+ Questions for Machine Comprehension of Text (2016)",
    "needs": ["generation", "forms"],
    "better": "low",
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
    """F1 of the generations, mean over rows.

    Args:
        scores: ``generation`` (what the model said) and ``forms`` (accepted forms of the answer).
        params: Nothing to set.
        reference: Not used.

    Returns:
        The mean in [0, 1]. On rows to forget low is good, on rows to keep high is.
    """
    shares = {
        row: best_f1(said, forms)
        for row, (said, forms) in aligned(scores, "generation", "forms").items()
    }
    return average(shares, scores, "generation", "forms")
