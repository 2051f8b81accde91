"""Option advantage: which values of a corrupted fact the model leans to, before it says anything.

Definition (s(A) = mean over values v in A of the mean log-probability of v's tokens; sets of values
C: correct, K: corrupted, R: random others of the same relation):
    advantage   mean_i s(C_i) - s(R_i)
    corrupted   mean_i s(K_i) - s(R_i)
    recovered   share of rows with s(C_i) > s(R_i) and s(K_i) - s(R_i) <= margin

Reference: RESTOR: Knowledge Recovery in Machine Unlearning (2024).

Departs from the paper: it plots the three sets and calls a fact recovered when the correct values
lead and the corrupted ones are about as likely as random ones; the number for "about" is ours
(INFERRED). Only tokens that carry the value are scored: the published code leaves out the first
id of the tokenised value, which is the one that opens a text there; a space that stands as a token
of its own is left out here too.

Meaning:
    restored    the clean model's advantage is positive and its ``corrupted`` about 0. An removed
                model has both about 0, a corrupted one a high ``corrupted``
    fooled by   frequent values: "male" is likely whatever is known, so compare models on the same
                rows, never rows with one another

Example:
    The correct value leads the random one by 2 nats a token, the corrupted one trails it by .5.

    >>> from expunge.testing import measure
    >>> logp = {"correct": [-1.0], "corrupted": [-3.5], "random": [-2.0, -4.0]}
    >>> value = measure("option-advantage", {"value_logp": [logp]})
    >>> value.mean, value.parts["corrupted"], value.parts["recovered"]
    (2.0, -0.5, 1.0)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import asked, average, table

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "option-advantage",
    "kind": "metric",
    "summary": "How far a fact's correct values lead random ones in log-probability.",
    "paper": "RESTOR: Knowledge Recovery in Machine Unlearning (2024)",
    "needs": ["value_logp"],
    "better": "high",
    "range": [None, None],
    "access": "logits",
    "cost": "one forward pass for each value of a row, the prompt shared",
    "maturity": "paper",
    "version": 1,
}

KINDS = ("correct", "corrupted", "random")


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """When a corrupted value counts as gone."""

    margin: float = param(
        0.5, help="most by which corrupted values may lead random ones, nats a token", low=0.0
    )


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, Mapping[str, Any]]:
    """Mean log-probability of a token of every value that ``meta["values"]`` of a row lists."""
    from expunge.lm.phrases import grouped_logp

    asked_rows = [
        (row, {kind: [f" {value}" for value in row.meta["values"][kind]] for kind in KINDS})
        for row in rows.get("", ())
        if "values" in row.meta
    ]
    return {"value_logp": grouped_logp(models.model, asked_rows)}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """How far correct values lead random ones, mean over rows.

    Args:
        scores: ``value_logp``: for each kind of value a list of numbers, nats a token.
        params: The margin.
        reference: Not used.

    Returns:
        The mean in nats a token, higher is better; parts ``corrupted`` and ``recovered``.
    """
    complete = {
        row: {kind: fmean(kinds[kind]) for kind in KINDS}
        for row, kinds in table(scores, "value_logp").items()
        if all(kinds.get(kind) for kind in KINDS)
    }
    leads = {row: of["correct"] - of["random"] for row, of in complete.items()}
    value = average(leads, scores, "value_logp")
    if value.mean is None:
        return value
    beside = {"corrupted": {row: of["corrupted"] - of["random"] for row, of in complete.items()}}
    left_out = len(asked(scores, "value_logp")) - len(complete)
    note = f"{left_out} rows lack one of the kinds {', '.join(KINDS)}" if left_out else ""
    parts = _parts(list(zip(leads.values(), beside["corrupted"].values(), strict=True)), params)
    return replace(value, beside=beside, parts=parts, note=note)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The mean lead, and the parts; ``beside`` holds the same rows in the same order."""
    pairs = list(zip(rows.tolist(), beside["corrupted"].tolist(), strict=True))
    return {"mean": float(rows.mean()), **_parts(pairs, params)}


def _parts(leads: Sequence[tuple[float, float]], params: Params) -> dict[str, float]:
    return {
        "corrupted": fmean(corrupted for _, corrupted in leads),
        "recovered": fmean(
            correct > 0 and corrupted <= params.margin for correct, corrupted in leads
        ),
    }
