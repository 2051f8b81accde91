"""Base perplexity: how surprising what the model writes is to the model it came from.

Definition (g_i the greedy answer to prompt x_i; b the base model, or the original without one):
    L_i        = -(1/|g_i|) log p_b(g_i | x_i)        nats a token, the end of the answer left out
    perplexity = exp(mean_i L_i)

Reference: Who's Harry Potter? Approximate Unlearning in LLMs (2023) and others measure the fluency
of answers so; the model that judges differs from paper to paper.

Departs from the paper: the judge is the base or the original model, whichever is given first, and
the note names it; no other model is fetched. Empty answers cannot be judged and are counted.

Meaning:
    sound       what the original's own answers get; far above it the words make no sense
    fooled by   repetition, which every model finds likely: a loop has a perplexity near 1, so low
                is good only beside a low `repetition`

Example:
    Two answers of log 2 and log 8 nats a token: exp of their mean is 4.

    >>> from math import log
    >>> from expunge.testing import measure
    >>> scores = {"judged_nll": [log(2), log(8)], "judge": ["base", "base"]}
    >>> value = measure("base-perplexity", scores)
    >>> round(value.mean, 12), value.note
    (4.0, 'judged by the base model')
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, asked, unmeasurable

if TYPE_CHECKING:
    from expunge.core.bootstrap import FloatArray
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "base-perplexity",
    "kind": "metric",
    "summary": "Perplexity of the model's answers under the model it came from.",
    "paper": "Who's Harry Potter? Approximate Unlearning in LLMs (2023)",
    "needs": ["judged_nll", "judge"],
    "models_if_given": ["base", "original"],
    "better": "low",
    "range": [1.0, None],
    "access": "text",
    "cost": "one greedy generation, and one forward pass of the base, a row",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How long the judged answers are."""

    new_tokens: int = param(64, help="longest answer, in tokens", low=1)


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, Mapping[str, Any]]:
    """How likely the base finds the answers; nothing where there is no model to judge."""
    from expunge.lm.judged import judged_nll

    judge = "base" if models.base is not None else "original"
    by = models.base or models.original
    asked = rows.get("", ())
    if by is None:
        return {}
    found = judged_nll(models.model, by, asked, new_tokens=params.new_tokens)
    return {"judged_nll": found, "judge": {row.id: judge for row in asked}}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Perplexity of the answers.

    Args:
        scores: ``judged_nll`` (mean negative log-likelihood of each answer under the judge, nats a
            token) and ``judge``, its name.
        params: Only ``read`` looks at them.
        reference: Not used.

    Returns:
        The perplexity; per row the nats a token. Low is good.
    """
    rows = aligned(scores, "judged_nll", "judge")
    if not rows:
        return unmeasurable("no base or original model judged an answer")
    per_row = {row: nll for row, (nll, _) in rows.items()}
    judges = " and ".join(sorted({judge for _, judge in rows.values()}))
    silent = len(asked(scores, "judge")) - len(rows)
    empty = f"; {silent} of {silent + len(rows)} answers were empty" if silent else ""
    with np.errstate(over="ignore"):
        mean = aggregate(np.array(list(per_row.values())), {}, params)["mean"]
    if not np.isfinite(mean):
        return unmeasurable("the answers' loss under the judge is no number, or beyond any")
    return Value(mean=mean, per_row=per_row, note=f"judged by the {judges} model{empty}")


def aggregate(
    rows: "FloatArray", beside: Mapping[str, "FloatArray"], params: Params
) -> dict[str, float]:
    """Exp of the mean, [n] nats a token."""
    return {"mean": float(np.exp(rows.mean()))}
