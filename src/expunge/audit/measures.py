"""The metrics of an audit: each reading is made once for each model and scored many times."""

from collections.abc import Iterable, Mapping, Sequence

from expunge.core.bootstrap import Units
from expunge.core.measuring import REFERENCE, Measure, measured
from expunge.core.registry import metrics
from expunge.core.results import Value
from expunge.lm.gather import Gathered, Models, Scores
from expunge.lm.readings import Asking
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

ORIGINAL = "original"

Values = dict[str, dict[str, Value | None]]
"""Metric -> ``model``, ``original``, ``reference`` -> its value."""


def measure(
    ids: Iterable[str],
    subjects: Mapping[str, Subject | None],
    roles: Mapping[str, Sequence[Row]],
    new_tokens: int,
    seed: int = 0,
) -> Values:
    """Measure all models on the forget rows.

    Args:
        ids: Metrics.
        subjects: ``model``, ``original`` and ``reference``; None where there is none.
        roles: ``forget`` and whatever other rows there are.
        new_tokens: Length of an answer, in tokens.
        seed: Of the intervals.
    """
    rows = {role: of for role, of in roles.items() if of}
    asking = {role: Asking(new_tokens=new_tokens) for role in rows}
    original, reference = subjects.get(ORIGINAL), subjects.get(REFERENCE)
    gathered = {
        who: Gathered(Models(model=subject, original=original, reference=reference), rows, asking)
        for who, subject in subjects.items()
        if subject is not None
    }
    units = Units({row.id: row.subject for of in rows.values() for row in of}, seed)
    chosen = list(ids)
    for each in gathered.values():
        each.prepare(Measure(metric=id) for id in chosen)
    found: Values = {}
    for id in chosen:
        scores = {who: each.scores(Measure(metric=id)) for who, each in gathered.items()}
        found[id] = {who: _value(id, who, scores, units) for who in subjects}
    return found


def _value(id: str, who: str, scores: Mapping[str, Scores], units: Units) -> Value | None:
    """None for a model there is none of, and for the reference compared with itself."""
    compares = REFERENCE in metrics.card(id).needs
    if who not in scores or (compares and (who == REFERENCE or REFERENCE not in scores)):
        return None
    reference = scores[REFERENCE] if compares else None
    return measured(id, scores[who], reference, units=units).value
