"""Consistency score: are answers about what was asked, as much as those of a fine-tuned model?

Definition (cos the cosine of two texts as vectors; x_i the question, g_i the greedy answer):
    CS = (1/n) sum_i cos(x_i, g_i)
    score = |CS - CS of the reference|

Meaning: Low is good. CS alone has no good end: an answer that repeats the question has the highest
and one about something else the lowest, so it is compared with a model that was trained and
answers naturally: here the retrained reference. A guard that answers with one fixed sentence has a
CS that differs from it. It says nothing about whether anything was forgotten.

Reference: DRAGON: Guard LLM Unlearning in Context via Negative Detection and Reasoning (2025).

Departs from the paper: it compares with a model unlearned by one named method, we with the
reference; the cosine is of hashed character pieces unless an embedding model is given, and the
note names it.

Example:
    >>> from expunge.testing import measure
    >>> scores = {"question": ["Where was Ada born?"], "generation": ["Where was Ada born?"]}
    >>> apart = {"question": ["Where was Ada born?"], "generation": ["xyz"]}
    >>> value = measure("consistency-score", scores, reference=apart)
    >>> round(value.mean, 6), round(value.parts["model"], 6), value.parts["reference"]
    (1.0, 1.0, 0.0)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, matched, unmeasurable
from expunge.text.embedding import embedder

CARD = {
    "id": "consistency-score",
    "kind": "metric",
    "summary": "Resemblance of question and answer, away from that of the reference.",
    "paper": "DRAGON: Guard LLM Unlearning in Context via Negative Detection and Reasoning (2025)",
    "needs": ["question", "generation", "reference"],
    "better": "low",
    "range": [0.0, 2.0],
    "access": "text",
    "cost": "one greedy generation a row, on both models",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What compares texts, and whether different rows may be compared."""

    embedding: str = param(
        "hashing",
        help="hashing, or the local folder of a static embedding model",
        paper="a sentence embedding model",
    )
    allow_unmatched: bool = param(
        False, help="compare even when the two models were measured on different rows"
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Difference of the two consistency scores.

    Args:
        scores: ``question`` and ``generation`` of the model.
        params: What compares texts.
        reference: The same readings of the retrained model.

    Returns:
        The difference; the two scores are the parts ``model`` and ``reference``, the cosine of
        question and answer is the value of a row.

    Raises:
        ExpungeError: E-DATA-013 when the two models were measured on different rows.
    """
    if reference is None:
        return unmeasurable("it compares with a retrained reference, and none was given")
    own, other = _cosines(scores, params), _cosines(reference, params)
    if not own or not other:
        return unmeasurable("no row has question and generation")
    matched(own, other, allow_unmatched=params.allow_unmatched)
    parts = _numbers(fmean(own.values()), fmean(other.values()))
    note = f"cosines by {params.embedding}"
    return Value(
        mean=parts.pop("mean"), per_row=own, beside={"reference": other}, parts=parts, note=note
    )


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The difference, from cosines of the model [n] and the reference [m]."""
    return _numbers(float(rows.mean()), float(beside["reference"].mean()))


def _numbers(model: float, reference: float) -> dict[str, float]:
    return {"mean": abs(model - reference), "model": model, "reference": reference}


def _cosines(scores: Mapping[str, Any], params: Params) -> dict[str, float]:
    rows = aligned(scores, "question", "generation")
    if not rows:
        return {}
    embed = embedder(params.embedding)
    questions = embed([_text(question) for question, _ in rows.values()])
    answers = embed([said for _, said in rows.values()])
    cosines = (questions * answers).sum(1)
    return {row: min(1.0, float(each)) for row, each in zip(rows, cosines, strict=True)}


def _text(question: Any) -> str:
    """A prompt as one text; of a conversation, what was said last."""
    return question if isinstance(question, str) else str(question[-1]["content"])
