"""Parameters of components: the fields of a frozen dataclass, checked in one place.

Flags of the command line (``--set beta=0.1``), keys of ``change.json`` and the tables of the
documentation all come from these fields.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
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


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientParams:
    """Parameters every gradient method has; its ``Params`` adds its own and restates defaults."""

    forget_weight: float = param(1.0, help="weight of the forget term (gamma)", low=0.0)
    retain_weight: float = param(1.0, help="weight of the retain term (alpha)", low=0.0)
    retain_term: str = param(
        "nll", help="what keeps the retain rows in place", choices=("none", "nll", "kl", "mse")
    )
    kl_scope: Literal["answer", "all_nonpad", "legacy_all"] = param(
        "all_nonpad",
        help="positions the kl term averages over",
        paper="legacy_all",
        choices=("answer", "all_nonpad", "legacy_all"),
    )
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by the size of the model", paper=1e-5, low=0.0
    )
    epochs: int | None = param(
        None, help="passes over the forget set; none leaves it to max_steps", paper=10, low=1
    )
    max_steps: int | None = param(
        None, help="most optimiser steps; none leaves it to epochs", low=1
    )
    batch_size: int = param(16, help="forget rows of each part of a step", paper=32, low=1)
    accumulation: int = param(1, help="parts an optimiser step is made of", low=1)
    warmup: int | Literal["auto"] = param(
        "auto", help="optimiser steps over which the rate rises", paper="one epoch", low=0
    )
    schedule: Literal["linear", "cosine", "constant"] = param(
        "linear",
        help="how the rate goes after the warm-up: to 0 by a line or a cosine, or not at all",
        paper="linear",
        choices=("linear", "cosine", "constant"),
    )
    weight_decay: float = param(0.0, help="decoupled weight decay", paper=0.01, low=0.0)
    mse_layer: int | None = param(
        None, help="block whose output retain_term=mse compares; none takes the middle one"
    )
    precision: Literal["auto", "float32", "bf16", "bf16-masters"] = param(
        "auto",
        help="bf16 computes in bfloat16 over float32 weights (auto: on an accelerator); "
        "bf16-masters also holds bfloat16 weights, with float32 masters in the optimiser",
        paper="bf16",
        choices=("auto", "float32", "bf16", "bf16-masters"),
    )
    packing: bool = param(False, help="rows end to end in one line instead of padded")
    checkpointing: bool = param(
        False, help="keep block inputs only and compute activations again in the backward pass"
    )
    base_bits: Literal[4] | None = param(
        None, help="hold the frozen weights under an adapter in this many bits"
    )
    layers: tuple[int, ...] | None = param(
        None, help="blocks that may move, negative from the top; none means all"
    )
    lora_r: int = param(8, help="rank of the adapter, when one is asked for", paper=8, low=1)
    lora_alpha: float = param(32.0, help="scale of the adapter: alpha / r", paper=32, low=0.0)
    lora_targets: tuple[str, ...] | None = param(
        None, help="modules that get an adapter; none means every linear layer of the blocks"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class EditParams(GradientParams):
    """Parameters every locate-and-edit method has; its ``Params`` restates defaults.

    Of the parameters of gradient methods only those of rows and precision mean something here.
    """

    retain_term: str = param("none", help="nothing is trained", choices=("none",))
    max_steps: int | None = param(None, help="most edits; none edits every forget row", low=1)
    target: Literal["refusal", "self", "wrong", "text"] = param(
        "refusal",
        help="what is to be said: a refusal of the pool, one the model writes itself, the row's "
        "own wrong answer, or one given text",
        paper="self",
        choices=("refusal", "self", "wrong", "text"),
    )
    text: str = param("I don't know.", help="target=text: what is to be said")
    styles: int = param(3, help="target=refusal: how many of the pool are used", paper=3, low=1)
    merge: int = param(
        1, help="prompts with one target that share an edit (query merging)", paper=[10, 20], low=1
    )
    contexts: int = param(
        5, help="texts of the model that each prompt is put behind as well", paper=[5, 20], low=0
    )
    fact_token: Literal["auto", "subject_last", "last"] = param(
        "auto",
        help="where a prompt is edited: at the last token of the subject, at the last one before "
        "the answer, or where values are found more easily",
        paper="subject_last",
        choices=("auto", "subject_last", "last"),
    )
    v_num_grad_steps: int = param(25, help="most steps to find a value", paper=[20, 25], low=0)
    v_lr: float = param(0.5, help="rate of these steps", paper=[0.5, 0.1], low=0.0)
    v_weight_decay: float = param(
        0.5, help="weight of the length of what is added to a value", paper=0.5, low=0.0
    )
    clamp_norm_factor: float = param(
        4.0, help="longest addition to a value, in lengths of the value", paper=[4, 0.75], low=0.0
    )
    kl_factor: float = param(
        0.0625, help="weight of what else is said of the subject", paper=0.0625, low=0.0
    )
    corpus: str | None = param(
        None,
        help="file of rows the second moment of keys is taken over; none takes retain rows",
        paper="100000 articles",
    )
