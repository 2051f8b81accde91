"""Answer agreement: does the model still say what the original says?

Definition (u: the model's greedy answer, o: the original's answer to the same question):
    bleu      BLEU-4 of u against o, words as they stand, zero precisions smoothed
    rouge_l   F1 of the words of u and o that stand in common order, by sentences

Meaning:
    1: word for word what the original says; 0: not one word of it. It needs no true answer, so it
    works on questions that have none. On rows to forget it should fall, on rows to keep it should
    stay. A retrained model has no fixed value here: it still says the many words that any answer
    holds, so read it beside unrelated questions. A refusal and a model in ruins both bring it to
    0, and a model that says the same thing in other words is taken for one that forgot. Rows to
    which the original says nothing are left out.

Reference: Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces (2024).

Departs from the paper: its script hands the two answers to BLEU the other way round, the
unlearned model's as the reference; here the original's is the reference, as its text says.

Example:
    >>> from expunge.testing import measure
    >>> said = {"generation": ["a b c d"], "original:generation": ["a b c e"]}
    >>> round(measure("answer-agreement", said).mean, 7)  # (3/4 * 2/3 * 1/2 * 1/2) ** (1/4)
    0.5946036
    >>> measure("answer-agreement", said, score="rouge_l").mean
    0.75
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average
from expunge.text.overlap import bleu
from expunge.text.sentence_overlap import rouge_by_sentences

NEEDS = ("generation", "original:generation")

CARD = {
    "id": "answer-agreement",
    "kind": "metric",
    "summary": "Overlap of the model's answers with those of the original model.",
    "paper": "Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces (2024)",
    "needs": ["generation", "original:generation"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "one generation a row, on both models",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which overlap."""

    score: str = param(
        "bleu",
        help="bleu or the F1 of rouge_l",
        paper="both",
        choices=("bleu", "rouge_l"),
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Mean overlap of the model's answers with the original's.

    Args:
        scores: ``generation`` of the model and ``original:generation``.
        params: Which overlap.
        reference: Not used.
    """
    overlap = bleu if params.score == "bleu" else _rouge_l
    answers = aligned(scores, *NEEDS)
    shares = {row: overlap(*both) for row, both in answers.items() if both[1].strip()}
    return average(shares, scores, *NEEDS)


def _rouge_l(answer: str, original: str) -> float:
    return rouge_by_sentences(answer, original).f1
