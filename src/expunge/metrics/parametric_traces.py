"""Parametric traces: did the MLP vector that encodes a concept change?

Definition (v: the value vector of a concept, a column of an MLP output projection; o, u: original
and this model; T: the 200 tokens that v writes most, by v against the output embedding):
    cosine    = min(1, v_o v_u / (|v_o| |v_u|))
    distance  = |v_o - v_u|
    jaccard   = |T_o and T_u| / |T_o or T_u|
    related   = |R and T_u| / |R|          R: tokens of T_o that occur in a text on the concept,
                                           function words left out

Meaning:
    Cosine, Jaccard and related rate 1 and distance 0: the trace is intact, whatever the model says;
    fine-tuning methods mostly leave it so. Low values say that the vector itself was rewritten. The
    distance is in units of the weights and compares models of one original only. What fools it: a
    concept does not live in one vector alone, and a vector can keep its direction while nothing
    calls it any more. A retrained model has other vectors altogether, so it has no value to aim at.

Reference: Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces (2024).

Departs from the paper: tokens are compared by id, not by the tokenizer's spelling; the list of
function words is our own. Where a row does not name its vector, it is searched for in the original:
of the columns whose strongest tokens are strongest on average, the one that shares most of them
with the row's text (INFERRED: the text stands in for the paper's judge). Adapters are folded into
the weights first. The output embedding is each model's own.

Example:
    >>> from expunge.testing import measure
    >>> traces = {"trace_cosine": [1.0, 0.5], "trace_distance": [0.0, 1.0]}
    >>> traces |= {"trace_jaccard": [1.0, 0.25], "trace_related": [1.0, 0.0]}
    >>> measure("parametric-traces", traces).mean, measure(
    ...     "parametric-traces", traces, score="jaccard").mean
    (0.75, 0.625)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average, table, unmeasurable

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

SCORES = ("cosine", "distance", "jaccard", "related")

CARD = {
    "id": "parametric-traces",
    "kind": "metric",
    "summary": "How much is left of the MLP vector that encodes a concept.",
    "paper": "Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces (2024)",
    "needs": ["trace_cosine", "trace_distance", "trace_jaccard", "trace_related"],
    "models": ["original"],
    "better": "low",
    "range": [-1.0, None],
    "access": "weights",
    "cost": "one product of a vector with the output embedding a concept and model; to search for "
    "the vectors, one of all MLP outputs with it",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which of the four numbers, and how many tokens a vector is known by."""

    score: str = param(
        "cosine",
        help="cosine, distance (which grows with forgetting), jaccard or related",
        paper="all four",
        choices=("cosine", "distance", "jaccard", "related"),
    )
    top: int = param(200, help="tokens that a vector writes most", paper=200, low=1)


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, Any]]:
    """The four numbers of each row's vector: row id -> value.

    The vector is ``meta["layer"]`` and ``meta["dim"]`` of the row, or searched for.

    Raises:
        ExpungeError: E-USE-003 when the model has no such vector, E-MODEL-007 where its MLPs are
            not known or hold no plain weights, E-USE-006 for models of other shapes.
    """
    from expunge.lm.traces import compare

    assert models.original is not None  # noqa: S101
    found = compare(models.original, models.model, rows[""], params.top)
    return {
        f"trace_{name}": {row: values[name] for row, values in found.items()} for name in SCORES
    }


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """One of the four numbers, mean over concepts.

    Args:
        scores: The four tables, row id -> value.
        params: Which of them.
        reference: Not used.

    Returns:
        The mean; a concept of which no strong token occurs in its text has no ``related`` rate.
    """
    lacking = [f"trace_{name}" for name in SCORES if f"trace_{name}" not in scores]
    if lacking:
        return unmeasurable(f"{', '.join(lacking)} were not read: it takes the original")
    need = f"trace_{params.score}"
    if not table(scores, need):
        return unmeasurable("no strong token of a vector occurs in the text on its concept")
    return average({row: value for row, (value,) in aligned(scores, need).items()}, scores, need)
