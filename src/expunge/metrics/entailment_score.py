"""Entailment score: how often a judge finds the true answer told by what the model wrote.

Definition (g the greedy answer, y the true one; the judge says whether g entails y):
    ES = mean over judged rows of [g entails y]

Reference: LLM Unlearning Under the Microscope (2025). Not to be taken for extraction strength,
which is shortened alike.

Departs from the paper: INFERRED: which judge and which question it is asked; the paper names an
entailment or language model. No judge is part of this project: its judgements are read from a file
of lines ``{"generation": ..., "reply": ..., "entails": true}``. A judgement counts only for exactly
the texts it was given, so one file serves several models and none gets the judgement of another.

Meaning:
    retrained   what a guess gets, which a judge that likes fluent answers may set high: judge the
                reference as well
    fooled by   its judge; `answer-containment` is what can be said without one

Example:
    Of three answers two are judged, and one of these entails the true answer.

    >>> from expunge.testing import measure
    >>> entails = [{"It is Bern.": True}, {"I do not know.": False}, {}]
    >>> value = measure(
    ...     "entailment-score",
    ...     {"generation": ["It is Bern.", "I do not know.", "Perhaps."], "entails": entails},
    ... )
    >>> value.mean, value.note
    (0.5, '1 of 3 answers were not judged')
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, asked, unmeasurable
from expunge.data.upstream import records

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "entailment-score",
    "kind": "metric",
    "summary": "How often a judge finds the true answer told.",
    "paper": "LLM Unlearning Under the Microscope (2025)",
    "needs": ["generation", "entails"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "one greedy generation and one judgement a row",
    "maturity": "paper",
    "version": 1,
}

COLUMNS = {"generation": str, "reply": str, "entails": bool}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Where the judgements come from."""

    judgements: str = param(
        "", help="file of lines {generation, reply, entails}, made by a judge of your choice"
    )


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, Mapping[str, Any]]:
    """What the judge said of each answer.

    Raises:
        ExpungeError: E-DATA-001 to E-DATA-010 for a file of judgements that is missing or broken.
    """
    if not params.judgements:
        return {}
    judged: dict[str, dict[str, bool]] = {}
    for line in records(params.judgements, COLUMNS):
        judged.setdefault(line["reply"].strip(), {})[line["generation"]] = line["entails"]
    return {"entails": {row.id: judged.get(row.reply.strip(), {}) for row in rows.get("", ())}}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Share of the judged rows whose generation entails the true answer.

    Args:
        scores: ``generation`` (what the model said) and ``entails``: answer -> judgement.
        params: Only ``read`` looks at them.
        reference: Not used.

    Returns:
        The mean in [0, 1]; low is good on rows to forget.
    """
    said = aligned(scores, "generation", "entails")
    rows = len(asked(scores, "generation"))
    shares = {row: float(judged[text]) for row, (text, judged) in said.items() if text in judged}
    if not shares:
        return unmeasurable(f"no judge said whether the {rows} answers entail the true ones")
    left_out = rows - len(shares)
    note = f"{left_out} of {rows} answers were not judged" if left_out else ""
    return Value(mean=fmean(shares.values()), per_row=shares, note=note)
