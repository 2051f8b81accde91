"""What a method wrote itself before training: made once, kept for people and for restarts."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_text
from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.engine.task import Task

FOLDER = "made"
"""Name of the folder inside the run, and later inside the change."""


def made_once(
    task: Task, name: str, make: Callable[[], Sequence[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The records that ``make`` gives, one JSON object each.

    The first process makes them and the others are told, so that all train on the same. They are
    kept as ``name.jsonl`` in the task's folder; a run that is resumed reads them from there. Their
    hash goes into the record of the run.

    Args:
        task: What is asked.
        name: Of the file.
        make: Called where nothing is kept yet.

    Raises:
        ExpungeError: ``E-DATA-002`` when the kept file is broken.
    """
    file = None if task.folder is None else task.folder / f"{name}.jsonl"

    def found() -> list[dict[str, Any]]:
        if file is not None and file.is_file():
            return _read(file)
        records = list(make())
        if file is not None:
            lines = [json.dumps(record, ensure_ascii=False) for record in records]
            write_text(file, "\n".join([*lines, ""]))
        return records

    if task.world is None or task.world.size == 1:
        records = found()
    else:
        records = task.world.agreed(found() if task.world.first else None)
    task.record[f"{name}_digest"] = digest(records)
    return records


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise ExpungeError(
            "E-DATA-002",
            f"{file} is not what this run wrote: {error}",
            "one JSON object a line.",
            "Delete that file; it is made again.",
        ) from error
