"""Wrong answers to the forget prompts: the rows' own, else values of other rows."""

from dataclasses import replace
from itertools import cycle, islice
from typing import Any

from expunge.engine.alternates import alternates_of, said_instead
from expunge.engine.made import made_once
from expunge.engine.task import Paired, Task
from expunge.requests.rows import Row, Turn


def put_beside(task: Task, count: int) -> None:
    """Put ``count`` wrong answers beside each forget row, as the view ``alternate``."""
    records = made_once(task, "altered", lambda: altered(task, count))
    replies = {one["id"]: [answer["reply"] for answer in one["alternates"]] for one in records}
    origins = [answer["origin"] for one in records for answer in one["alternates"]]
    task.record["altered_given"] = origins.count("row")
    task.record["altered_permuted"] = origins.count("permute")

    def beside(row: Row, wording: int, candidate: int) -> Turn:
        return said_instead(row, wording, replies[row.id][candidate])

    task.paired["alternate"] = Paired(beside, count=count, take=count)


def altered(task: Task, count: int) -> list[dict[str, Any]]:
    """For every forget row ``id`` and ``alternates``: its wrong answers, the first ones first."""
    told = [row for row in task.forget if row.wrong]
    others = [row for row in task.forget if not row.wrong]
    found = {row.id: _own(row, count) for row in told}
    if others:
        roles = {**task.roles, "forget": others, "retain": [*told, *task.retain]}
        made = alternates_of(replace(task, roles=roles), count, "permute")
        found |= {one["id"]: one for one in made}
    return [found[row.id] for row in task.forget]


def _own(row: Row, count: int) -> dict[str, Any]:
    replies = islice(cycle(row.wrong), count)
    return {"id": row.id, "alternates": [{"reply": r.strip(), "origin": "row"} for r in replies]}
