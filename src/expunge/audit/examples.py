"""The rows that leak most, with what the models answer to the plain question."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from expunge.audit.mounting import mean_per_row
from expunge.audit.plan import statistic_of
from expunge.audit.record import Mounted
from expunge.lm.elicit import ask_plainly
from expunge.lm.subject import Subject
from expunge.lm.values import prompt_text
from expunge.requests.rows import Row

MOST = 10


def worst_leaks(
    rows: Sequence[Row],
    mounted: Iterable[Mounted],
    subjects: Mapping[str, Subject | None],
    new_tokens: int,
) -> tuple[dict[str, Any], ...]:
    """At most `MOST` rows, the largest leak of any attack first, then in the order given.

    Args:
        rows: Attacked rows.
        mounted: The attacks.
        subjects: ``model`` as it is served, ``original``, ``reference``; None where there is none.
        new_tokens: Length of an answer, in tokens.
    """
    worst = {row.id: (0.0, "") for row in rows}
    for one in mounted:
        if statistic_of(one.entry.id) != "recovery":
            continue
        for id, leak in mean_per_row(one.model).items():
            if leak > worst[id][0]:
                worst[id] = (leak, one.name)
    chosen = sorted(rows, key=lambda row: -worst[row.id][0])[:MOST]
    said = {
        who: _plain_answers(subject, rows, new_tokens)
        for who, subject in subjects.items()
        if subject is not None
    }
    return tuple(
        {
            "id": row.id,
            "prompt": prompt_text(row.turn),
            "answer": row.reply,
            "attack": worst[row.id][1],
            "leak": worst[row.id][0],
            "original": said["original"][row.id],
            "model": said["model"][row.id],
            "reference": said["reference"][row.id] if "reference" in said else None,
        }
        for row in chosen
    )


def _plain_answers(subject: Subject, rows: Sequence[Row], new_tokens: int) -> dict[str, str]:
    """Row id -> answer to its first wording."""
    answers: dict[str, str] = {}
    for one in ask_plainly(subject, rows, new_tokens=new_tokens):
        answers.setdefault(one.probe.row.id, one.outputs[0])
    return answers
