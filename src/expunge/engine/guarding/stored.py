"""A fitted guard as files: ``guard.json``, its key, and its numbers where it has any.

The key lies in a file of its own that only its owner may read, so that it can be kept elsewhere.
With it the hashes of the state can be tested with guesses and what is sealed can be read.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_bytes, write_json
from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.core.paths import inside
from expunge.core.registry import guards
from expunge.engine.guarding.fitting import Shared, State
from expunge.engine.guarding.sealing import opened_entry, sealed_entry

FORMAT = "guard/1"
STATE, KEY, ARRAYS = "guard.json", "guard.key", "guard.safetensors"


def as_json(state: State, secret: bytes) -> dict[str, Any]:
    """All of a state but its arrays, what is to be sealed sealed."""
    told = {"format": FORMAT, **asdict(replace(state, shared=Shared(state.shared.settings)))}
    told["shared"] = dict(state.shared.settings)
    entries = {id: sealed_entry(entry, secret) for id, entry in sorted(state.entries.items())}
    return {**sealed_entry({**told, "entries": {}}, secret), "entries": entries}


def name_of(state: State) -> str:
    """Names a state; equal ones have equal names."""
    return _digest({**asdict(replace(state, shared=Shared(state.shared.settings)))},
                   state.shared.arrays)  # fmt: skip


def of_json(told: Mapping[str, Any], secret: bytes, arrays: Mapping[str, Any]) -> State:
    """The state that `as_json` wrote.

    Raises:
        ExpungeError: ``E-MODEL-002`` for anything else, ``E-SERVE-007`` for another key.
    """
    try:
        if told["format"] != FORMAT or guards.card(told["guard"]).version != told["version"]:
            raise ValueError(told["format"])
        return State(
            guard=str(told["guard"]),
            version=int(told["version"]),
            params=dict(told["params"]),
            seed=int(told["seed"]),
            entries={id: opened_entry(entry, secret) for id, entry in told["entries"].items()},
            shared=Shared(opened_entry(dict(told["shared"]), secret), arrays),
            thresholds={name: float(value) for name, value in told["thresholds"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ExpungeError(
            "E-MODEL-002",
            "The state of a guard that this version did not write.",
            f"a state of the format {FORMAT} and of this version of the guard.",
            "Write the guard again.",
        ) from error


def write(folder: Path, state: State, secret: bytes) -> dict[str, Any]:
    """Write a state into a change folder.

    Returns:
        What ``change.json`` says of it under ``runtime``.
    """
    from safetensors.numpy import save

    told = as_json(state, secret)
    write_json(folder / STATE, told)
    write_bytes(folder / KEY, secret.hex().encode())
    os.chmod(folder / KEY, 0o600)
    if state.shared.arrays:
        write_bytes(folder / ARRAYS, save(dict(state.shared.arrays)))
    return {"guard": state.guard, "file": STATE, "digest": _digest(told, state.shared.arrays)}


def read(folder: Path, runtime: Mapping[str, Any]) -> tuple[State, bytes]:
    """The state of a change folder, and its key.

    Raises:
        ExpungeError: ``E-MODEL-009`` when it is not what ``change.json`` says, ``E-MODEL-002`` and
            ``E-SERVE-007`` when it cannot be read.
    """
    from safetensors.numpy import load_file

    from expunge.lm.headers import read_header, read_json

    told = read_json(inside(folder, str(runtime["file"])))
    arrays: Mapping[str, Any] = {}
    if (file := inside(folder, ARRAYS)).is_file():
        read_header(file)
        arrays = load_file(file)
    if not isinstance(told, dict) or _digest(told, arrays) != runtime["digest"]:
        raise ExpungeError(
            "E-MODEL-009",
            f"The guard's state in {folder} is not what change.json says.",
            "the state the guard was written with.",
            "Somebody changed it: write the guard again.",
        )
    secret = _key(folder)
    return of_json(told, secret, arrays), secret


def _key(folder: Path) -> bytes:
    try:
        secret = bytes.fromhex(inside(folder, KEY).read_text())
    except (OSError, ValueError):
        secret = b""
    if len(secret) != 32:
        raise ExpungeError(
            "E-SERVE-007",
            f"No key of the guard in {folder}.",
            f"the file {KEY} that was written with it.",
            f"Put {KEY} back, or write the guard again.",
        )
    return secret


def _digest(told: Mapping[str, Any], arrays: Mapping[str, Any]) -> str:
    parts = [[name, str(one.dtype), list(one.shape), one.tobytes().hex()]
             for name, one in sorted(arrays.items())]  # fmt: skip
    return digest([told, parts])
