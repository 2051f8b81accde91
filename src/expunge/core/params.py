"""Parameters of components: the fields of a frozen dataclass, checked in one place.

Flags of the command line (``--set beta=0.1``), keys of ``change.json`` and the tables of the
documentation all come from these fields.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from expunge.core.errors import ExpungeError, nearest, raise_all

Parameters = TypeVar("Parameters")

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def param(
    default: Any,
    *,
    help: str,
    paper: Any = None,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """A field of a component's ``Params``; give literals only, for the card reads the source.

    Args:
        default: The value when nothing is said.
        help: What it does and in which unit, in one line.
        paper: The value, or values, the paper used.
        low: Smallest number allowed (also of each element of a tuple).
        high: Largest number allowed.
        choices: The only values allowed.

    Returns:
        A `dataclasses.field`.
    """
    facts = {"help": help, "paper": paper, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=facts)


def describe(cls: type) -> dict[str, dict[str, Any]]:
    """What there is to know of each field of ``cls``.

    Returns:
        Name -> ``default``, ``help``, ``paper``, ``type`` (as written), ``low``, ``high``,
        ``choices``; unknown facts are None.
    """
    hints = get_type_hints(cls)
    return {
        one.name: {
            "default": one.default,
            "help": one.metadata.get("help"),
            "paper": one.metadata.get("paper"),
            "type": _spelling(hints[one.name]),
            "low": one.metadata.get("low"),
            "high": one.metadata.get("high"),
            "choices": one.metadata.get("choices"),
        }
        for one in fields(cls)
    }


def resolve(
    cls: type[Parameters], overrides: Mapping[str, Any], where: str = "Params"
) -> Parameters:
    """An instance of ``cls`` with ``overrides`` in place of its defaults.

    Strings are read as the field's type (``beta=0.1``, ``layers=-1,3``, ``legacy_union=true``,
    ``lr=auto``, ``layers=none``); a hyphen in a name is read as an underscore.

    Args:
        cls: A dataclass whose fields are made by `param`.
        overrides: Name -> value, or the text of it.
        where: Id of the component, for the messages.

    Raises:
        ExpungeError: ``E-USE-002`` for unknown names, ``E-USE-003`` for values of the wrong type
            or out of range; all problems at once.
    """
    known = {one.name: one for one in fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    problems: list[ExpungeError] = []
    for given, value in overrides.items():
        name = given.replace("-", "_")
        if name not in known:
            problems.append(_unknown(given, where, known))
            continue
        try:
            values[name] = _read(value, hints[name])
            _check_range(values[name], known[name])
        except ValueError as reason:
            found = f"{where}: {name} = {value!r}, {reason}."
            problems.append(_wrong(found, known[name], hints[name]))
    raise_all(problems)
    return cls(**values)


def _unknown(name: str, where: str, known: Mapping[str, Any]) -> ExpungeError:
    return ExpungeError(
        "E-USE-002",
        f"{where} has no parameter {name!r}.",
        f"one of its {len(known)} parameters.",
        nearest(name, known) if known else "Leave it out.",
    )


def _wrong(found: str, spec: "Field[Any]", hint: Any) -> ExpungeError:
    return ExpungeError(
        "E-USE-003",
        found,
        f"{_spelling(hint)}{_range_of(spec)}.",
        f"Correct it, or leave it out (the default is {spec.default!r}).",
    )


def _range_of(spec: "Field[Any]") -> str:
    low, high, choices = (spec.metadata.get(key) for key in ("low", "high", "choices"))
    if choices is not None:
        return ", one of " + " ".join(str(choice) for choice in choices)
    bounds = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
    return ", " + " and ".join(bounds) if bounds else ""


def _check_range(value: Any, spec: "Field[Any]") -> None:
    low, high, choices = (spec.metadata.get(key) for key in ("low", "high", "choices"))
    for item in value if isinstance(value, tuple) else (value,):
        if choices is not None and item not in choices:
            raise ValueError(f"{item!r} is not a choice")
        if isinstance(item, bool) or not isinstance(item, int | float):
            continue
        if low is not None and item < low:
            raise ValueError(f"{item} is too small")
        if high is not None and item > high:
            raise ValueError(f"{item} is too large")


def _read(value: Any, hint: Any) -> Any:
    """``value`` as a value of the type ``hint``.

    Raises:
        ValueError: When it is none; the message ends a sentence.
    """
    origin = get_origin(hint)
    if origin in (UnionType, Union):
        return _read_union(value, hint)
    if origin is Literal:
        return _read_choice(value, get_args(hint))
    if origin is tuple:
        return _read_tuple(value, get_args(hint))
    return _READERS[hint](value)


def _read_union(value: Any, hint: Any) -> Any:
    # Words before numbers and numbers before plain text, which would swallow all of them.
    for member in sorted(get_args(hint), key=lambda member: member is str):
        try:
            return _read(value, member)
        except ValueError:
            continue
    raise ValueError(f"which is not {_spelling(hint)}")


def _read_choice(value: Any, allowed: tuple[Any, ...]) -> Any:
    for choice in allowed:
        if value == choice or value == str(choice):
            return choice
    raise ValueError("which is not a choice")


def _read_tuple(value: Any, items: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.strip("()[] ").split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError("which is not a list")
    if items[-1] is Ellipsis:
        return tuple(_read(item, items[0]) for item in value)
    if len(value) != len(items):
        raise ValueError(f"which has {len(value)} elements instead of {len(items)}")
    return tuple(_read(item, hint) for item, hint in zip(value, items, strict=True))


def _read_none(value: Any) -> None:
    if value is not None and not (isinstance(value, str) and value.lower() in ("none", "null")):
        raise ValueError("which is not none")


def _read_bool(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    if isinstance(value, bool):
        return value
    raise ValueError("which is neither true nor false")


def _read_int(value: Any) -> int:
    try:
        if isinstance(value, str):
            return int(value)
    except ValueError:
        raise ValueError("which is not a whole number") from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("which is not a whole number")
    return value


def _read_float(value: Any) -> float:
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("which is not a number") from None
    if not math.isfinite(number):
        raise ValueError("which is not a finite number")
    return number


def _read_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("which is not text")
    return value


_READERS: dict[Any, Callable[[Any], Any]] = {
    NoneType: _read_none,
    None: _read_none,
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: _read_str,
}


def _spelling(hint: Any) -> str:
    """A type as its author wrote it, which is also how the card reads it from the source."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):
        return " | ".join(_spelling(member) for member in arguments)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is tuple:
        return f"tuple[{', '.join(_spelling(member) for member in arguments)}]"
    if hint is Ellipsis:
        return "..."
    return "None" if hint is NoneType else str(hint.__name__)
