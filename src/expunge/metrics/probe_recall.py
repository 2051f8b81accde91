"""Probe recall: how much of the true answer's wording a probe gets out, target by target.

Definition (rouge the ROUGE-L recall of `expunge.text.sentence_overlap`; g the greedy answer):
    r_i     rouge(g_i, y_i) of probe i, about the target t(i)
    targets = mean over targets t of the mean of r_i over the probes about t
    rows    = mean over all probes of r_i
    parts   the same over the probes of one kind (nine kinds of adversarial probe)

Reference: RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models (2024).

Departs from the paper: nothing; with one target both means are the same. Upstream averages over
targets the results of models that each forgot one of them; this averages over the targets asked.

Meaning:
    retrained   small but not 0: names share words, and common answers are guessed
    fooled by   case and commas, which are part of a word here: ``paris`` does not recall ``Paris``;
                a model that hides behind one kind of question is seen in the parts

Example:
    Two probes about one target, of which one succeeds, and one about another, which does.

    >>> from expunge.testing import measure
    >>> value = measure("probe-recall", {
    ...     "generation": ["Bern", "Basel", "Turin."], "reply": ["Bern", "Bern", "Turin"],
    ...     "subject": ["a", "a", "b"], "kind": ["blank", "role play", "blank"],
    ... })
    >>> value.mean, value.parts
    (0.75, {'blank': 1.0, 'role play': 0.0})
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, asked, unmeasurable
from expunge.text.sentence_overlap import rouge_by_sentences

if TYPE_CHECKING:
    from expunge.core.bootstrap import FloatArray
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "probe-recall",
    "kind": "metric",
    "summary": "ROUGE-L recall of probes, by kind, averaged over targets.",
    "paper": "RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models (2024)",
    "needs": ["generation", "reply", "subject", "kind"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "one greedy generation of 30 tokens a probe",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What is averaged."""

    over: str = param(
        "targets",
        help="targets: each counts alike; rows: each probe counts alike",
        paper="targets",
        choices=("targets", "rows"),
    )


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, Mapping[str, Any]]:
    """The kind of each probe."""
    return {"kind": {row.id: str(row.meta.get("kind", "plain")) for row in rows.get("", ())}}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Recall of the probes.

    Args:
        scores: ``generation`` (what the model said), ``reply`` (the true answer), ``subject`` (the
            target of each probe) and ``kind`` (of probe).
        params: What is averaged.
        reference: Not used.

    Returns:
        The mean in [0, 1], parts by kind where there are several. On targets to forget low is good,
        on their neighbours high is.
    """
    rows = aligned(scores, "generation", "reply", "subject", "kind")
    if not rows:
        return unmeasurable("no row has generation and reply and subject and kind")
    recall = {row: rouge_by_sentences(each[0], each[1]).recall for row, each in rows.items()}
    kinds = sorted({each[3] for each in rows.values()})
    beside = {"weight": _weights({row: each[2] for row, each in rows.items()}, params)}
    for kind in kinds if len(kinds) > 1 else ():
        of_kind = {row: each[2] for row, each in rows.items() if each[3] == kind}
        beside[kind] = dict.fromkeys(rows, 0.0) | _weights(of_kind, params)
    arrays = {name: np.array(list(of.values())) for name, of in beside.items()}
    found = aggregate(np.array(list(recall.values())), arrays, params)
    left_out = len(asked(scores, "reply")) - len(rows)
    note = f"{left_out} rows lack an answer, a target or a kind" if left_out > 0 else ""
    mean = found.pop("mean")
    return Value(mean=mean, per_row=recall, beside=beside, parts=found, note=note)


def aggregate(
    rows: "FloatArray", beside: Mapping[str, "FloatArray"], params: Params
) -> dict[str, float]:
    """Weighted means: of all probes, and of each kind.

    Args:
        rows: [n], recall of the probes.
        beside: [n] each: ``weight``, and the weight of the probes of one kind, 0 for others.
        params: Already in the weights.
    """
    return {
        "mean" if name == "weight" else name: float((rows * weight).sum() / weight.sum())
        if weight.sum() > 0
        else float("nan")
        for name, weight in beside.items()
    }


def _weights(target: Mapping[str, str], params: Params) -> dict[str, float]:
    """What each row counts: 1, or one over the number of rows about its target."""
    count = Counter(target.values())
    by_target = params.over == "targets"
    return {row: 1 / count[name] if by_target else 1.0 for row, name in target.items()}
