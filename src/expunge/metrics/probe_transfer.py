"""Probe transfer: do the model's features still tell the topics of the rows apart?

Definition (x_i: state after block l at the last position before the answer of row i; c_i: topic):
    linear   a ridge classifier learned from the other folds' (x, c), asked for row i
    knn      the vote of the k rows of the other folds nearest to row i, by cosine
    hit_i    1 where the topic found is c_i
    score    = mean hit of the model - mean hit of the retrained reference

Meaning:
    0: the features are as good for the topics as those of a model that never saw the rows; above
    0: more is left in them than that; below 0: less, which is damage or a sign that something was
    taken out by force. Topics are `meta["topic"]`, or else the subject. A question names what it
    is about, so the reference itself is far above chance; only the difference means anything. The
    parts give both accuracies. What fools it: few rows a topic make a poor probe, and a poor probe
    finds no difference.

Reference: Are We Truly Forgetting? A Critical Re-examination of Machine Unlearning Evaluation
Protocols (2025).

Departs from the paper: the paper freezes features of image classifiers and asks a k-NN (k = 5,
cosine) with a fixed 80/20 split. Here the features are those of a language model before it answers,
and each row is asked once, in five folds that keep topics apart (INFERRED), so that every row
counts; the linear probe is ridge regression on scaled features (INFERRED).

Example:
    >>> from expunge.testing import measure
    >>> now, never = {"linear_hit": [1, 1, 1, 0]}, {"linear_hit": [1, 0, 1, 0]}
    >>> now["knn_hit"] = never["knn_hit"] = [1, 1, 1, 1]
    >>> measure("probe-transfer", now, reference=never).mean
    0.25
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import asked, matched, table, unmeasurable

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "probe-transfer",
    "kind": "metric",
    "summary": "How much better the features tell topics apart than those of the reference.",
    "paper": "Are We Truly Forgetting? A Critical Re-examination of Machine Unlearning Evaluation "
    "Protocols (2025)",
    "needs": ["linear_hit", "knn_hit", "reference"],
    "better": "target",
    "target": 0.0,
    "range": [-1.0, 1.0],
    "access": "activations",
    "cost": "one forward pass a row on two models",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which features, which probe."""

    probe: str = param(
        "linear", help="linear, or the nearest neighbours", paper="knn", choices=("linear", "knn")
    )
    layer: int = param(-1, help="block, negative from the top", paper=-1)
    neighbours: int = param(5, help="k of the nearest neighbours", paper=5, low=1)
    folds: int = param(5, help="parts of the rows, each asked once", paper=5, low=2)
    seed: int = param(0, help="decides the folds")


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, Any]]:
    """Whether each row's topic is found: row id -> 0 or 1, None where its topic has one row only.

    Raises:
        ExpungeError: E-USE-003 when the model has no such block.
    """
    from expunge.lm.representations import question_states
    from expunge.numbers.geometry import cross_asked, neighbour_labels, ridge_labels

    topics = {row.id: str(row.meta.get("topic") or row.subject or "") for row in rows[""]}
    states = question_states(models.model, rows[""], params.layer)
    probes = {
        "linear_hit": ridge_labels,
        "knn_hit": lambda seen, labels, new: neighbour_labels(seen, labels, new, params.neighbours),
    }
    hits = {
        name: cross_asked(states, topics, probe, folds=params.folds, seed=params.seed)
        for name, probe in probes.items()
    }
    return {name: {row: of.get(row) for row in topics} for name, of in hits.items()}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Accuracy of the probe on the model, less that on the reference.

    Args:
        scores: ``linear_hit`` and ``knn_hit``: row id -> 0 or 1.
        params: Which of the two.
        reference: The same of the retrained model.

    Returns:
        Hits of the model as ``per_row``, those of the reference beside; both accuracies as parts.

    Raises:
        ExpungeError: E-DATA-013 when the two models were measured on different rows.
    """
    if reference is None:
        return unmeasurable("it compares with a retrained reference, and none was given")
    tables = [table(of, n) for of in (scores, reference) for n in ("linear_hit", "knn_hit")]
    if not all(tables):
        return unmeasurable("fewer than two topics have two rows each")
    name = f"{params.probe}_hit"
    hits, expected = table(scores, name), table(reference, name)
    matched(hits, expected, allow_unmatched=False)
    accuracy, usual = fmean(hits.values()), fmean(expected.values())
    alone = len(asked(scores, name)) - len(hits)
    return Value(
        mean=accuracy - usual,
        per_row={row: float(hit) for row, hit in hits.items()},
        beside={"reference": {row: float(hit) for row, hit in expected.items()}},
        parts={"accuracy": accuracy, "reference_accuracy": usual},
        note=f"{alone} rows are the only one of their topic" if alone else "",
    )


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """Difference of the mean hits [n] and [n]."""
    accuracy, usual = float(rows.mean()), float(beside["reference"].mean())
    return {"mean": accuracy - usual, "accuracy": accuracy, "reference_accuracy": usual}
