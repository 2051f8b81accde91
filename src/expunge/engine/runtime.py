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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self, TypeVar

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.lm.digest import tensors_digest
from expunge.lm.subject import Subject

FORMAT = "run-time-part/1"

Model = TypeVar("Model", bound=nn.Module)
Mount = Callable[[PreTrainedModel], "Attached"]
"""Puts something into a model by hooks."""


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

    Args:
        bare: The model.
        parts: What of methods is put in.
        mounts: Name -> what else puts itself into the model, after the parts.
    """

    def __init__(
        self, bare: Subject, parts: Sequence[Part], mounts: Mapping[str, Mount] | None = None
    ) -> None:
        model = twin(bare.model)
        for part in parts:
            attach(model, part)
        for mount in (mounts or {}).values():
            mount(model)
        name = digest([bare.digest, *(part.digest for part in parts), *(mounts or {})])
        super().__init__(model, bare.tokenizer, digest=name, batch_size=bare.batch_size)
        self.bare, self.parts = bare, tuple(parts)


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


def _unfit(part: Part, why: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-002",
        f"The run-time part of {part.method} cannot be attached: {why}.",
        "a part that this version made for this model.",
        "Make the change again, or load it without its part (runtime=False).",
    )
