"""The columns of a row: what each may hold, and how a wrong one is described."""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from expunge.core.errors import ExpungeError, nearest
from expunge.core.limits import NESTING

ROLES = ("forget", "retain", "neighbour", "holdout", "probe")
"""What rows can be for."""

SPEAKERS = ("system", "developer", "user", "assistant", "tool")
"""Who can speak in ``messages``."""

_UNFIT = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff]")


class Unfit(Exception):
    """A value that its column does not take.

    Attributes:
        code: The error code it becomes.
        found: What was found, as the middle of a sentence.
        expected: What the column takes.
    """

    def __init__(self, code: str, found: str, expected: str) -> None:
        super().__init__(found)
        self.code, self.found, self.expected = code, found, expected


def text(value: Any) -> str:
    """A string without half surrogates and without control characters.

    Tabs, line feeds, form feeds and carriage returns are text; the other control characters
    come from broken conversions, and a tokenizer would make something of them.
    """
    if not isinstance(value, str):
        raise Unfit("E-DATA-003", _kind(value), "a string")
    bad = _UNFIT.search(value)
    if bad:
        point = f"the character U+{ord(bad[0]):04X} at place {bad.start()}"
        raise Unfit("E-DATA-010", point, "text without control characters or half surrogates")
    return value


def filled(value: Any) -> str:
    """A string with something in it."""
    if not text(value).strip():
        raise Unfit("E-DATA-003", "an empty string", "a string with something in it")
    return str(value)


def role(value: Any) -> str:
    """One of `ROLES`."""
    if value not in ROLES:
        raise Unfit("E-DATA-003", repr(value)[:60], f"one of {', '.join(ROLES)}")
    return str(value)


def strings(value: Any) -> tuple[str, ...]:
    """A list of non-empty strings."""
    return tuple(filled(item) for item in _items(value, "a list of strings"))


def messages(value: Any) -> tuple[Mapping[str, str], ...]:
    """A conversation: ``{"role", "content"}`` each, the last one said by the assistant."""
    turns = tuple(_message(item) for item in _items(value, "a list of messages"))
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise Unfit(
            "E-DATA-003",
            f"{len(turns)} messages that do not end with the assistant's",
            "at least one message and the assistant's reply to it, last",
        )
    return turns


def _message(value: Any) -> Mapping[str, str]:
    shape = '{"role": ..., "content": ...}'
    if not isinstance(value, Mapping) or set(value) != {"role", "content"}:
        raise Unfit("E-DATA-003", _kind(value), shape)
    if value["role"] not in SPEAKERS:
        found = f"the role {str(value['role'])[:40]!r} in a message"
        raise Unfit("E-DATA-003", found, f"one of {', '.join(SPEAKERS)}")
    return {"role": value["role"], "content": text(value["content"])}


def paraphrases(value: Any) -> tuple[Mapping[str, str], ...]:
    """Other wordings: ``{"prompt", "completion"}`` each, or a plain string as the prompt."""
    return tuple(_paraphrase(item) for item in _items(value, "a list of paraphrases"))


def _paraphrase(value: Any) -> Mapping[str, str]:
    if isinstance(value, str):
        return {"prompt": filled(value)}
    if (
        not isinstance(value, Mapping)
        or "prompt" not in value
        or not set(value) <= {"prompt", "completion"}
    ):
        raise Unfit("E-DATA-003", _kind(value), '{"prompt": ..., "completion": ...} or a string')
    if value.get("completion") is None:
        return {"prompt": text(value["prompt"])}
    return {"prompt": text(value["prompt"]), "completion": filled(value["completion"])}


def spans(value: Any) -> tuple[tuple[int, int], ...]:
    """Character ranges ``[start, end]`` of the completion, the end not included."""
    return tuple(_span(item) for item in _items(value, "a list of [start, end]"))


def _span(value: Any) -> tuple[int, int]:
    expected = "[start, end] with whole numbers and 0 <= start < end"
    if not isinstance(value, Sequence) or len(value) != 2:
        raise Unfit("E-DATA-003", _kind(value), expected)
    start, end = value
    if type(start) is not int or type(end) is not int or not 0 <= start < end:
        raise Unfit("E-DATA-003", f"the range {value!r}"[:80], expected)
    return start, end


def meta(value: Any) -> Mapping[str, Any]:
    """An object of anything that JSON holds."""
    if not isinstance(value, Mapping):
        raise Unfit("E-DATA-003", _kind(value), "an object")
    _check_deep(value, NESTING)
    return value


def _check_deep(value: Any, depth: int) -> None:
    if depth == 0:
        raise Unfit("E-DATA-009", "a value nested too deep", f"at most {NESTING} levels")
    if isinstance(value, str):
        text(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            text(key)
            _check_deep(item, depth - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_deep(item, depth - 1)


READERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "id": filled,
        "role": role,
        "text": filled,
        "prompt": text,
        "completion": filled,
        "messages": messages,
        "subject": filled,
        "names": strings,
        "answer": filled,
        "aliases": strings,
        "paraphrases": paraphrases,
        "wrong": strings,
        "spans": spans,
        "meta": meta,
    }
)
"""The columns of a row and what reads each."""


def read_columns(obj: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[ExpungeError]]:
    """The columns of one record, with every problem of theirs; null counts as absent."""
    columns: dict[str, Any] = {}
    problems: list[ExpungeError] = []
    for key, value in obj.items():
        reader = READERS.get(key)
        if reader is None:
            problems.append(_unknown(key, where))
        elif value is not None:
            try:
                columns[key] = reader(value)
            except Unfit as unfit:
                problems.append(wrong(where, key, unfit))
    return columns, problems


def wrong(where: str, column: str, unfit: Unfit) -> ExpungeError:
    """What is wrong with one column of the record at ``where``."""
    return ExpungeError(
        unfit.code,
        f"{where}: column {column!r} holds {unfit.found}.",
        f"{unfit.expected}.",
        f"Correct {column!r} in this row.",
    )


def _unknown(key: Any, where: str) -> ExpungeError:
    name = str(key)[:60]
    return ExpungeError(
        "E-DATA-004",
        f"{where}: unknown column {name!r}.",
        f"the columns {', '.join(READERS)}.",
        f"{nearest(name, READERS)} Anything else you want to carry goes under 'meta'.",
    )


def _items(value: Any, expected: str) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise Unfit("E-DATA-003", _kind(value), expected)
    return value


def _kind(value: Any) -> str:
    """A short description of a value of the wrong shape."""
    if isinstance(value, Mapping):
        return f"an object with the keys {', '.join(map(str, list(value)[:6])) or '(none)'}"[:120]
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "a list" if isinstance(value, Sequence) else "something else")
