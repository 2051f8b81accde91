"""LUME: forget half of three collections: stories, biographies with invented PII, real biographies.

Definition (per task and role; greedy, up to 256 new tokens):
    regurgitation      ROUGE-L recall (stems) of the completion of a passage
    knowledge          literal match of the answer to a question, case apart
    TASK.aggregate     harmonic mean over the task's four: 1 - value on forget rows, value on retain
    task_aggregate     the same over all twelve
    mia                AUC of the loss attack on documents of ``mia_data``, where they are
    mmlu               accuracy on MMLU, where a folder ``mmlu`` is
    score              (task_aggregate + 1 - 2 |mia - 1/2| + mmlu) / 3

Reference: LUME: LLM Unlearning with Multitask Evaluations (2025); the aggregates are those of
SemEval-2025 Task 4: Unlearning Sensitive Content from Large Language Models (2025).

Departs from the paper: a space parts prompt and answer where upstream scores ``input + output``
without one. Ids of the files begin with a quotation mark in some tasks and are not used as row ids.
A document and its questions are one entity. The challenge judged on held-out rows of the same
making; here the rows evaluated are those to be forgotten, as in the paper.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError, raise_all
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.abilities import abilities
from expunge.data.facts import distinct, known_split
from expunge.data.upstream import Record, record_id, records
from expunge.requests.rows import Row

CARD = {
    "id": "lume",
    "kind": "benchmark",
    "summary": "Forget stories, personal data and biographies; completion and questions.",
    "paper": "LUME: LLM Unlearning with Multitask Evaluations (2025)",
    "needs": ["forget", "retain"],
    "access": "text",
    "cost": "one generation of up to 256 tokens for each of some 5,500 rows",
    "maturity": "beta",
    "version": 1,
    "splits": ["all", "task1", "task2", "task3"],
    "default_split": "all",
    "licence": "Apache-2.0, as the repository states; task 3 quotes an encyclopedia (CC-BY-SA)",
}

SPLITS = ("all", "task1", "task2", "task3")
TASKS = ("task1", "task2", "task3")
ROLES = ("forget", "retain")
KINDS = {"sc": "completion", "qa": "question"}
"""How an id ends -> what the row is."""
STYLES = {"plain": ("{}", " {}"), "chat": ("{}", "{}")}
"""Style -> how the prompt and the answer are written."""

_ID = re.compile(r'"?(?P<document>.+?)"?(?P<kind>sc|qa)\d+')
_MIA = {"member": "member.jsonl", "nonmember": "nonmember.jsonl"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How rows are put, and how many are evaluated."""

    style: str = param(
        "plain",
        help="plain: a space before the answer; chat: none, for chat templates",
        paper="plain",
        choices=("plain", "chat"),
    )
    rows: int | None = param(
        None, help="most rows of each of the twelve sets that are evaluated; none: all", low=1
    )
    shots: int = param(5, help="most examples before a question of MMLU", paper=5, low=0)
    new_tokens: int = param(256, help="longest answer, in tokens", paper=256, low=1)


def fitting(has_template: bool) -> dict[str, Any]:
    """Parameters that fit a model, by whether its tokenizer has a chat template."""
    return {"style": "chat" if has_template else "plain"}


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The rows to forget and to keep.

    Args:
        data: Folder with ``forget.jsonl`` and ``retain.jsonl``.
        split: ``all`` or one task.
        params: How rows are put.

    Raises:
        ExpungeError: E-USE-001 for an unknown split; E-DATA-001 to E-DATA-010 for a broken file.
    """
    return {
        role: [row for row in rows if row.meta["task"] in _tasks(split)]
        for role, rows in _read(data, params).items()
    }


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The rows models are compared on.

    Returns:
        ``task1.forget.completion`` and so on; ``member`` and ``nonmember``, and ``mmlu``, where
        their files are.

    Raises:
        ExpungeError: As `splits`.
    """
    found: dict[str, list[Row]] = {}
    for role, rows in splits(data, split, params).items():
        for row in rows:
            found.setdefault(f"{row.meta['task']}.{role}.{row.meta['kind']}", []).append(row)
    found |= _documents(data / "mia_data")
    found |= abilities(data, shots=params.shots, most=params.rows, names=["mmlu"])
    return {name: rows[: params.rows] for name, rows in found.items()}


def measures(params: Params) -> dict[str, Measure]:
    """The numbers; those whose rows a split or a folder lacks say so."""
    found = {name: measure for task in TASKS for name, measure in _of_task(task)}
    aggregates = {
        f"{task}.aggregate": [name for name in found if name.split(".")[1] == task]
        for task in TASKS
    } | {"task_aggregate": list(found)}
    for name, of in aggregates.items():
        found[name] = Measure(metric="task-aggregate", of={part: part for part in of})
    found["mia"] = Measure(metric="mia-loss", on="member", beside={"holdout": "nonmember"})
    found["mmlu"] = Measure(
        metric="choice-accuracy", on="mmlu", params={"rotate": False}, better="high"
    )
    parts = {"tasks": "task_aggregate", "auc": "mia", "mmlu": "mmlu"}
    found["score"] = Measure(metric="lume-score", of=parts)
    return found


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    what = "all tasks" if split == "all" else known_split("LUME", split, SPLITS)
    return (
        f"Fine-tune the base model on the retain rows of {what} alone, with the recipe that taught "
        "the original both halves. The numbers here do not need it."
    )


def cells(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The columns of the benchmark's table: the aggregates."""
    names = (*(f"{task}.aggregate" for task in TASKS), "task_aggregate", "mia", "mmlu", "score")
    return {name: summary["values"][name]["mean"] for name in names}


def details(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The twelve numbers behind them."""
    return {
        name: value["mean"]
        for name, value in summary["values"].items()
        if name.split(".")[0] in ROLES
    }


def _tasks(split: str) -> tuple[str, ...]:
    return TASKS if known_split("LUME", split, SPLITS) == "all" else (split,)


def _of_task(task: str) -> Iterator[tuple[str, Measure]]:
    for role in ROLES:
        better = "high" if role == "retain" else None
        yield (
            f"{role}.{task}.regurgitation",
            Measure(metric="rouge", on=f"{task}.{role}.completion", better=better),
        )
        yield (
            f"{role}.{task}.knowledge",
            Measure(metric="literal-match", on=f"{task}.{role}.question", better=better),
        )


def _read(data: Path, params: Params) -> dict[str, list[Row]]:
    """Role -> rows of all tasks, in the order of their ids."""
    found: dict[str, list[Row]] = {}
    for role in ROLES:
        path = data / f"{role}.jsonl"
        read = records(path, ("id", "input", "output", "task"), unique=("id",))
        _check(path, read)
        rows = [_row(record, role, params.style) for record in read]
        found[role] = distinct(rows, without=found.get("forget", ()))
    return found


def _check(path: Path, read: list[Record]) -> None:
    """Every record says its task and its kind, and has a prompt and an answer."""
    raise_all(
        [
            ExpungeError(
                "E-DATA-003",
                f"{path.name}, record {number}: {lacking}.",
                "a task of Task1 to Task3, an id that ends with sc1 or qa0, and no empty text.",
                "Use the upstream file unchanged.",
            )
            for number, record in enumerate(read, 1)
            if (lacking := _lacking(record))
        ][:20]
    )


def _lacking(record: Record) -> str:
    if record["task"].lower() not in TASKS:
        return f"the task {record['task'][:40]!r}"
    if not _ID.fullmatch(record["id"]):
        return f"the id {record['id'][:60]!r}"
    return "" if record["input"].strip() and record["output"].strip() else "an empty text"


def _row(record: Record, role: str, style: str) -> Row:
    document, kind = (_ID.sub(rf"\g<{part}>", record["id"]) for part in ("document", "kind"))
    prompt, answer = (part.format for part in STYLES[style])
    return Row(
        id=record_id(record["input"], record["output"]),
        role=role,
        prompt=prompt(record["input"]),
        completion=answer(record["output"]),
        answer=record["output"] if kind == "qa" else None,
        subject=document,
        meta={"task": record["task"].lower(), "kind": KINDS[kind]},
    )


def _documents(folder: Path) -> dict[str, list[Row]]:
    """Documents the model was trained on and others, where the folder is there."""
    if not folder.is_dir():
        return {}
    return {
        name: sorted(
            (
                Row(id=record_id(name, one["document"]), role="probe", text=one["document"])
                for one in records(folder / file, ("document",), unique=("document",))
            ),
            key=lambda row: row.id,
        )
        for name, file in _MIA.items()
    }
