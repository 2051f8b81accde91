"""The rows that leak most, with what the models answer to the plain question."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from expunge.audit.mounting import mean_per_row
from expunge.audit.record import Mounted
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
        for id, leak in mean_per_row(one.model).items():
            if leak > worst[id][0]:
                worst[id] = (leak, one.name)
    chosen = sorted(rows, key=lambda row: -worst[row.id][0])[:MOST]
    turns = [row.turn for row in chosen]
    said = {
        who: [answer[0] for answer in subject.ask(turns, new_tokens=new_tokens)]
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
            "original": said["original"][at],
            "model": said["model"][at],
            "reference": said["reference"][at] if "reference" in said else None,
        }
        for at, row in enumerate(chosen)
    )
