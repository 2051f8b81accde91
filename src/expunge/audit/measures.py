"""The metrics of an audit: each reading is made once for each model and scored many times."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from expunge.core.registry import metrics
from expunge.core.results import Value
from expunge.lm.readings import readings
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

REFERENCE = "reference"

Values = dict[str, dict[str, Value | None]]
"""Metric -> ``model``, ``original``, ``reference`` -> its value."""


def measure(
    ids: Iterable[str],
    subjects: Mapping[str, Subject | None],
    rows: Sequence[Row],
    new_tokens: int,
) -> Values:
    """Measure all models on the forget rows.

    Args:
        ids: Metrics.
        subjects: ``model``, ``original`` and ``reference``; None where there is none.
        rows: Forget rows.
        new_tokens: Length of an answer, in tokens.
    """
    chosen = list(ids)
    needs = {need for id in chosen for need in metrics.card(id).needs} - {REFERENCE}
    scores = {
        who: readings(subject, rows, sorted(needs), new_tokens=new_tokens)
        for who, subject in subjects.items()
        if subject is not None
    }
    return {id: {who: _value(id, who, scores) for who in subjects} for id in chosen}


def _value(id: str, who: str, scores: Mapping[str, Mapping[str, Any]]) -> Value | None:
    """None for a model there is none of, and for the reference compared with itself."""
    compares = REFERENCE in metrics.card(id).needs
    if who not in scores or (compares and (who == REFERENCE or REFERENCE not in scores)):
        return None
    params = metrics.params(id)
    reference = scores[REFERENCE] if compares else None
    value: Value = metrics.load(id).compute(scores[who], params, reference=reference)
    return value
