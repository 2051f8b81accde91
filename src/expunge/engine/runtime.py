"""Run-time parts: what of a change is not in the weights and is put into the model to serve it.

A side memory, a gate over adapters, an assistant whose logits are subtracted: a method that has
such a part defines, beside its slots,

    attach(model, part) -> Attached

which puts the part into the forward pass by hooks, and hands a `Part` over as ``change.runtime`` in
its ``finish`` or ``edit``. The engine writes it beside ``change.json``, attaches it by the same
door that `expunge.load` uses, and measures the result so. The weights in the folder stay a model
that other libraries load; without the part they are what whoever holds them has.

What is put in must be methods of objects, not closures: a model that is copied takes them along,
and a closure would go on speaking of the model it was made for.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from expunge.core.atomic import write_json
from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.core.paths import inside
from expunge.core.registry import methods
from expunge.engine.world import sharding
from expunge.lm.digest import tensors_digest
from expunge.lm.folder import Folder, inspect_folder
from expunge.lm.headers import read_header, read_json
from expunge.lm.subject import Subject

FORMAT = "run-time-part/1"
PARTS = "parts"
"""Where ``change.json`` lists them, below ``runtime``."""

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Part:
    """What a method puts into the forward pass of a model.

    Attributes:
        settings: How it works; plain JSON values.
        tensors: What it works with.
        moves: How many of its numbers change what the model says; 0 where it does nothing yet.
        method: Whose ``attach`` puts it in; the engine fills this in, and the next.
        version: Of that method's card.
        supersedes: Whether it takes the place of the parts that its method put in before; said
            when a change is made, and no part of what is written.
    """

    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    moves: int
    method: str = ""
    version: int = 0
    supersedes: bool = False

    @property
    def head(self) -> dict[str, Any]:
        """All of it but the tensors, as it is written."""
        return {
            "format": FORMAT,
            "method": self.method,
            "version": self.version,
            "moves": self.moves,
            "settings": dict(self.settings),
        }

    @property
    def digest(self) -> str:
        """Names the part: settings and tensors."""
        return digest([self.head, tensors_digest(self.tensors)])


class Attached:
    """A part that is in a model.

    Args:
        handles: The hooks that are the part.
    """

    def __init__(self, handles: Iterable[RemovableHandle]) -> None:
        self._handles = list(handles)

    def remove(self) -> None:
        """Take the part out again."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def attach(model: PreTrainedModel, part: Part) -> Attached:
    """Put a part into the forward pass of a model.

    Raises:
        ExpungeError: ``E-USE-001`` when its method is not installed, ``E-MODEL-002`` when that has
            no such part, has changed, or cannot put this part into this model.
    """
    module, version = methods.load(part.method), methods.card(part.method).version
    if not hasattr(module, "attach"):
        raise _unfit(part, f"{part.method} has no run-time part")
    if part.version != version:
        raise _unfit(part, f"it was made by version {part.version}, here is version {version}")
    try:
        attached: Attached = module.attach(model, part)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        raise _unfit(part, f"{type(e).__name__}: {str(e)[:200]}") from e
    return attached


def twin(model: Model, *, bare: bool = False) -> Model:
    """The same model in modules of its own: weights are shared, hooks are not.

    What is hooked into one of the two later leaves the other alone. Shared are the tensors: what an
    optimiser moves, it moves in both.

    Args:
        model: The model.
        bare: Whether the hooks that are there stay behind; else copies of them come along.
    """
    tensors = chain(model.parameters(), model.buffers())
    known: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    if bare:
        for module in model.modules():
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                known[id(hooks)] = type(hooks)()
    double = copy.deepcopy(model, known)
    if bare:
        # transformers reads hidden states and attention maps by hooks, and keeps a mark that they
        # are in place: without the hooks the mark would be a lie, and nothing would be read.
        for module in double.modules():
            vars(module).pop("_output_capturing_hooks_installed", None)
    return double


class Served(Subject):
    """A model with its run-time parts, as it is served.

    Attributes:
        bare: The same weights without the parts, for whoever goes past them.
        parts: The parts, in the order in which they were put in.
    """

    def __init__(self, bare: Subject, parts: Sequence[Part]) -> None:
        model = twin(bare.model)
        for part in parts:
            attach(model, part)
        name = digest([bare.digest, *(part.digest for part in parts)])
        super().__init__(model, bare.tokenizer, digest=name, batch_size=bare.batch_size)
        self.bare, self.parts = bare, tuple(parts)


def served(subject: Subject, folder: Folder) -> Subject:
    """A subject with the run-time parts its folder lists; itself where there are none.

    Raises:
        ExpungeError: As `parts_of`, and as `attach`.
    """
    parts = parts_of(folder)
    return Served(subject, parts) if parts else subject


def without_gate(subject: Subject) -> Subject:
    """A subject past its gate; the subject itself where it has none."""
    if subject.gate is None:
        return subject
    passed = copy.copy(subject)
    passed.gate = None
    return passed


def without_parts(subject: Subject) -> Subject:
    """A subject past its gate and its run-time parts; the subject itself where it has neither."""
    return without_gate(subject.bare if isinstance(subject, Served) else subject)


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


def _unfit(part: Part, why: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-002",
        f"The run-time part of {part.method} cannot be attached: {why}.",
        "a part that this version made for this model.",
        "Make the change again, or load it without its part (runtime=False).",
    )
