"""Run-time parts as a change folder holds them: written, listed, read back, stacked, refused.

What they are and how they get into a model is in `expunge.engine.runtime`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from expunge.core.atomic import write_json
from expunge.core.errors import ExpungeError
from expunge.core.paths import inside
from expunge.core.registry import methods
from expunge.engine.runtime import Part, Served
from expunge.engine.world import sharding
from expunge.lm.folder import Folder, inspect_folder
from expunge.lm.headers import read_header, read_json
from expunge.lm.subject import Subject

PARTS = "parts"
"""Where ``change.json`` lists them, below ``runtime``."""


def served(subject: Subject, folder: Folder) -> Subject:
    """A subject with the run-time parts its folder lists; itself where there are none.

    Raises:
        ExpungeError: As `parts_of`, and as `attach`.
    """
    parts = parts_of(folder)
    return Served(subject, parts) if parts else subject


def write_parts(folder: Path, parts: Sequence[Part]) -> dict[str, Any] | None:
    """Write parts into a change folder.

    Returns:
        What ``change.json`` says of them under ``runtime``; None when there are none.
    """
    entries = []
    for number, part in enumerate(parts, 1):
        name, weights = f"runtime-{number}.json", f"runtime-{number}.safetensors"
        write_json(folder / name, part.head)
        if part.tensors:
            plain = {key: one.detach().cpu().contiguous() for key, one in part.tensors.items()}
            save_file(plain, folder / weights)
        entries.append(
            {
                "method": part.method,
                "file": name,
                "tensors": weights if part.tensors else None,
                "digest": part.digest,
            }
        )
    return {PARTS: entries} if entries else None


def read_parts(folder: Path, manifest: Mapping[str, Any]) -> list[Part]:
    """The parts a change folder lists, each checked against its digest.

    Raises:
        ExpungeError: ``E-MODEL-009`` when a part is not the one that was written, ``E-MODEL-002``
            and ``E-MODEL-010`` for files that are none.
    """
    return [_read(folder, entry) for entry in entries_of(manifest)]


def parts_of(folder: Folder) -> list[Part]:
    """The parts a model is served with: its own, else those of what it builds on.

    Raises:
        ExpungeError: As `read_parts`.
    """
    if folder.manifest is not None and entries_of(folder.manifest):
        return read_parts(folder.path, folder.manifest)
    if folder.holds == "model" or folder.base is None:
        return []
    return parts_of(inspect_folder(folder.base))


def stacked(below: Sequence[Part], part: Part | None) -> list[Part]:
    """The parts of a change: what it stands on, then its own.

    Args:
        below: The parts of what it stands on.
        part: Its own, if it has one; where that supersedes, those of its method are left out.
    """
    if part is None:
        return list(below)
    stay = [one for one in below if not (part.supersedes and one.method == part.method)]
    return [*stay, part]


def entries_of(manifest: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What ``change.json`` says of each part; empty when the change has none.

    Raises:
        ExpungeError: ``E-MODEL-002`` when it says something else there.
    """
    runtime = manifest.get("runtime")
    entries = runtime.get(PARTS, []) if isinstance(runtime, Mapping) else []
    if isinstance(entries, list) and all(map(_is_entry, entries)):
        return entries
    raise ExpungeError(
        "E-MODEL-002",
        f"change.json lists its run-time parts as {str(entries)[:100]}.",
        "for each part its method, its files and their digest.",
        "Make the change again.",
    )


def files_of(manifest: Mapping[str, Any]) -> set[str]:
    """Names of the files that hold a change's parts."""
    named = (entry[key] for entry in entries_of(manifest) for key in ("file", "tensors"))
    return {name for name in named if name is not None}


def refused(method: str, folder: Folder, adapter: str | None) -> list[ExpungeError]:
    """What of a request cannot work with a run-time part, the method's own or the model's.

    Args:
        method: Id of the method.
        folder: The model to change.
        adapter: The adapter asked for, if any.
    """
    if hasattr(methods.load(method), "attach"):
        whose = f"{method}, which puts a run-time part into the model itself"
    elif folder.manifest is not None and entries_of(folder.manifest):
        whose = f"{folder.path}, a model with a run-time part"
    else:
        return []
    ways = {}
    if adapter:
        ways[f"--adapter {adapter}"] = "Leave --adapter out."
    if alone := _alone(method, folder):
        ways[f"The run-time part of {alone}, which stands beside no other,"] = (
            "Name a model without it, or a method without a run-time part."
        )
    if sharding():
        ways[sharding()] = "Use data parallelism (torchrun without sharding)."
    return [
        ExpungeError("E-USE-006", f"{way} with {whose}.", "options that go together.", remedy)
        for way, remedy in ways.items()
    ]


def _alone(method: str, folder: Folder) -> str:
    """Whose part the model has, where that stands beside no other method's; else ``""``."""
    module = methods.load(method)
    if folder.manifest is None or not hasattr(module, "attach"):
        return ""
    own = getattr(module, "CARD", {}).get("id", method)
    others = {entry["method"] for entry in entries_of(folder.manifest)} - {own}
    cards = {other: getattr(methods.load(other), "CARD", {}) for other in sorted(others)}
    return next((other for other, card in cards.items() if card.get("alone")), "")


def _is_entry(entry: object) -> bool:
    return isinstance(entry, Mapping) and all(
        isinstance(entry.get(key), str) or (key == "tensors" and entry.get(key, "") is None)
        for key in ("method", "file", "tensors", "digest")
    )


def _read(folder: Path, entry: Mapping[str, Any]) -> Part:
    head = read_json(inside(folder, entry["file"]))
    tensors: dict[str, Tensor] = {}
    if entry["tensors"] is not None:
        file = inside(folder, entry["tensors"])
        read_header(file)
        tensors = load_file(file)
    try:
        names = ("settings", "moves", "method", "version")
        part = Part(tensors=tensors, **{name: head[name] for name in names})
        found = part.digest if head == part.head else ""
    except (KeyError, TypeError, ValueError):
        found = ""
    if found != entry["digest"] or part.method != entry["method"]:
        raise ExpungeError(
            "E-MODEL-009",
            f"The run-time part {entry['file']} in {folder} is not what change.json says.",
            "the part that was written with this change.",
            "Somebody changed it: make the change again.",
        )
    return part
