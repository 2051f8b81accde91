"""What one model said of the benchmark's rows, as one JSON value.

The log is the primary artefact: every number is computed from it, and never stored alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.lm.readings import readings
from expunge.lm.subject import Subject
from expunge.requests.rows import Row


def make_log(
    subject: Subject, rows: Mapping[str, Sequence[Row]], names: Sequence[str], new_tokens: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Ask and score a model on every set.

    Args:
        subject: The model.
        rows: Set -> its rows.
        names: The readings wanted.
        new_tokens: Longest answer, in tokens.

    Returns:
        Set -> reading -> {row id: value}; ``reply`` holds the true answers beside them.

    Raises:
        ExpungeError: E-RUN-002 when a score is not a finite number.
    """
    return {name: _of_set(subject, name, of, names, new_tokens) for name, of in rows.items()}


def _of_set(
    subject: Subject, name: str, rows: Sequence[Row], names: Sequence[str], new_tokens: int
) -> dict[str, dict[str, Any]]:
    made = readings(subject, rows, names, new_tokens=new_tokens)
    log = {reading: _plain(values) for reading, values in made.items()}
    if not all(map(math.isfinite, _numbers(log))):
        raise ExpungeError(
            "E-RUN-002",
            f"Scores of the {name} rows are not finite numbers.",
            "a model whose probabilities are numbers.",
            "Lower the learning rate of the run that made this model.",
        )
    return {**log, "reply": {row.id: row.reply for row in rows}}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield float(value)
