"""Set quality (FIT): what a model still has of a set of documents, as one number in percent.

Definition (questions with answers y of n tokens, and documents; mean over each):
    Prob  = mean exp((1/n) sum_t log p(y_t | question, y_<t))      no special tokens
    ROUGE = mean ROUGE-L F1 of the greedy answer, over stems
    Acc   = mean share of a document's tokens that are the first choice, teacher forced
    Q = 100 (Prob ROUGE Acc)^(1/3)

Reference: FIT: Defying Catastrophic Forgetting in Continual LLM Unlearning (2026).

Departs from the paper: only the continuation is scored; the published evaluator compares the
answer with prompt and continuation together, cut at 128 tokens in all, which rewards whatever
stands in the question. Question and answer are tokenised as one text.

Meaning: 100 is a set known by heart. It is a geometric mean: one part at 0 hides the others, and a
model that refuses has 0 whatever is left in its weights. A retrained model is far from 0, since
Acc counts every common word. No number is good by itself: `forget-degree` and `retain-utility`
compare it with the retrained model's.

Example: probability e^-ln 2 = .5, the whole answer, one token of four.

    >>> from math import log
    >>> from expunge.testing import measure
    >>> texts = {"generation": ["the red door"], "reply": ["the red door"]}
    >>> hits = {"token_logp": [[-log(2), -log(2)]], "training_hit": [[1, 0, 0, 0]]}
    >>> round(measure("fit-quality", {**texts, **hits}).mean, 6)
    50.0
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import cbrt, exp
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average, table, unmeasurable
from expunge.text.overlap import rouge_l

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "fit-quality",
    "kind": "metric",
    "summary": "Geometric mean of answer probability, ROUGE-L and accuracy on the documents.",
    "paper": "FIT: Defying Catastrophic Forgetting in Continual LLM Unlearning (2026)",
    "needs": ["token_logp", "generation", "reply", "training_hit"],
    "better": "low",
    "range": [0.0, 100.0],
    "access": "logits",
    "cost": "one greedy generation and one forward pass a question, one pass a document",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Where the documents are."""

    texts: str = param("", help="set of the documents read for Acc; empty: the rows themselves")


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, Mapping[str, Any]]:
    """Which tokens of the documents are the model's first choice."""
    documents = rows.get(params.texts, ())
    scored = models.model.score([row.training for row in documents])
    hits = {row.id: one.hit[: one.text_tokens] for row, one in zip(documents, scored, strict=True)}
    return {"training_hit": hits} if hits else {}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Quality of a set, and its three factors.

    Args:
        scores: ``token_logp`` (nats, of the answer's tokens without its end), ``generation``,
            ``reply``, and ``training_hit`` of the documents, whose ids are their own.
        params: Only ``read`` looks at them.
        reference: Not used.

    Returns:
        Percent; per row the probability of the answer.
    """
    needs = ("token_logp", "generation", "reply")
    rows = aligned(scores, *needs)
    likely = {row: exp(fmean(logp)) for row, (logp, _, _) in rows.items()}
    value = average(likely, scores, *needs)
    hits = table(scores, "training_hit")
    if value.mean is None:
        return value
    if not hits:
        return unmeasurable("no document has training_hit")
    told = {row: rouge_l(said, true, stem=True).f1 for row, (_, said, true) in rows.items()}
    right = {document: fmean(hit) for document, hit in hits.items()}
    beside = {"rouge": told, "accuracy": right}
    arrays = {name: np.array(list(of.values())) for name, of in beside.items()}
    found = aggregate(np.array(list(likely.values())), arrays, params)
    return replace(value, mean=found.pop("mean"), parts=found, beside=beside)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """Quality and factors of the probabilities [n], beside overlaps [n] and accuracies [m]."""
    factors = {
        "probability": float(rows.mean()),
        "rouge": float(beside["rouge"].mean()),
        "accuracy": float(beside["accuracy"].mean()),
    }
    return {"mean": 100 * cbrt(np.prod(list(factors.values()))), **factors}
