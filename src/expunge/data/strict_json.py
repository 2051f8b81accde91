"""One line of JSON from a stranger: what the standard allows, within limits, or an error."""

import json
import re
from collections.abc import Callable
from itertools import accumulate
from math import isinf
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.limits import DIGITS, KEYS, NESTING

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"')
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


class _Refused(Exception):
    """A value that the parser's hooks do not take.

    Attributes:
        code: The error code it becomes.
        found: What was found.
        expected: What is allowed.
        token: Text by which the place is found in the line.
    """

    def __init__(self, code: str, found: str, expected: str, token: str) -> None:
        super().__init__(found)
        self.code, self.found, self.expected, self.token = code, found, expected, token


def parse_line(line: bytes, where: str) -> Any:
    """Parse one line.

    Args:
        line: The line, with or without its end.
        where: ``file:line``, for the message.

    Raises:
        ExpungeError: ``E-DATA-002`` for broken JSON and keys that stand twice in one object,
            ``E-DATA-008`` for numbers JSON does not allow or of more than `DIGITS` digits,
            ``E-DATA-009`` beyond `NESTING` or `KEYS`, ``E-DATA-010`` for invalid UTF-8.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ExpungeError(
            "E-DATA-010",
            f"{where}:{error.start + 1}: the byte 0x{line[error.start]:02x} is not UTF-8.",
            "text in UTF-8.",
            "Convert the file to UTF-8.",
        ) from error
    _check_nesting(text, where)
    try:
        return _DECODER.decode(text.strip(" \t\r\n"))
    except json.JSONDecodeError as error:
        column = error.pos + 1 + len(text) - len(text.lstrip(" \t\r\n"))
        raise ExpungeError(
            "E-DATA-002",
            f"{where}:{column}: broken JSON: {error.msg}.",
            "one complete JSON object a line.",
            "Correct this line; JSON libraries write it right.",
        ) from error
    except _Refused as refused:
        column = max(text.find(refused.token), 0) + 1
        raise ExpungeError(
            refused.code,
            f"{where}:{column}: {refused.found}.",
            f"{refused.expected}.",
            "Correct this line.",
        ) from refused


def _check_nesting(text: str, where: str) -> None:
    """Refuse deep nesting before the parser walks into it."""
    if text.count("[") + text.count("{") <= NESTING:
        return
    bare = _STRING.sub("", text)
    deepest = max(accumulate(_STEPS.get(char, 0) for char in bare), default=0)
    if deepest > NESTING:
        raise ExpungeError(
            "E-DATA-009",
            f"{where}:1: lists and objects {deepest} deep.",
            f"at most {NESTING} levels.",
            "Flatten this row.",
        )


def _constant(token: str) -> Any:
    raise _Refused("E-DATA-008", f"the number {token}", "numbers as JSON allows them", token)


def _short(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Conversion of numbers with a limit on their digits."""

    def converted(token: str) -> Any:
        digits = sum(map(str.isdigit, token))
        if digits > DIGITS:
            found = f"a number of {digits} digits"
            raise _Refused("E-DATA-008", found, f"at most {DIGITS} digits", token)
        value = convert(token)
        if isinstance(value, float) and isinf(value):
            expected = "numbers that fit a double"
            raise _Refused("E-DATA-008", f"the number {token}", expected, token)
        return value

    return converted


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(pairs) > KEYS:
        first = json.dumps(pairs[0][0], ensure_ascii=False)
        raise _Refused(
            "E-DATA-009", f"an object of {len(pairs)} keys", f"at most {KEYS} keys", first
        )
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        shown = json.dumps(twice[:60], ensure_ascii=False)
        raise _Refused("E-DATA-002", f"the key {shown} twice", "every key once", shown)
    return found


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_constant,
    parse_float=_short(float),
    parse_int=_short(int),
)
