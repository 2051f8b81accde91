"""An ensemble in use: every shard speaks, and the mean of what they say is heard.

    p(y|x) = 1/n sum_s softmax( z_s(x) )_y      mean=probabilities
    z(x)   = 1/n sum_s z_s(x)                   mean=logits

A *voice* is the frozen base with the adapters of one shard: those of all stages that are left of
its longest sequence. The first voice is the model itself; the others run in modules of their own
that share its weights, with keys and values behind the layers of the model in the caller's cache,
so whatever repeats, picks or drops rows of that cache does the same to them. Hidden states that
somebody reads in the model are those of the first voice.

Adapters stand beside the linears by hooks and are computed as `peft` computes them: the weights and
names of the model stay what they are.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from expunge.core.families import EnsembleParams
from expunge.engine.exact.stages import read_stage, stage_file
from expunge.engine.exact.state import Chain, Ensemble
from expunge.engine.first_pass import Asked, asked_of, tokens_of, with_cache
from expunge.engine.runtime import Attached, Part, twin
from expunge.lm.prefixes import new_cache
from expunge.lm.scoring import at_least_float32

A, B = "lora_A", "lora_B"
"""Ends of the names of an adapter's two factors."""

ALSO = ("logits_to_keep",)
"""What of a call, beside its tokens, says what the other voices are to give."""


@dataclass(frozen=True, slots=True)
class Speaking:
    """A sequence that speaks for its shard.

    Attributes:
        shard: The shard.
        sequence: Number of the sequence.
        chain: The sequence.
    """

    shard: int
    sequence: int
    chain: Chain


def speakers(ensemble: Ensemble) -> list[Speaking]:
    """Of each shard its longest sequence; one of which no stage, or no row, is left is silent."""
    found = []
    for shard, chains in enumerate(ensemble.shards):
        left = ensemble.left(shard)
        if any(left):
            longest = left.index(max(left))
            found.append(Speaking(shard, longest, chains[longest]))
    return found


def part_of(ensemble: Ensemble, folder: Path, params: EnsembleParams) -> Part:
    """The run-time part of an ensemble.

    Args:
        ensemble: As it is.
        folder: Where the files of its stages lie.
        params: The method's.
    """
    tensors: dict[str, Tensor] = {}
    voices = []
    for number, one in enumerate(speakers(ensemble)):
        spoken = adapters_of(folder, one.shard, one.sequence, one.chain.files)
        tensors |= {f"{number}/{name}": tensor for name, tensor in spoken.items()}
        told = {"shard": one.shard, "sequence": one.sequence, "stages": list(one.chain.files)}
        voices.append(told)
    root = math.sqrt(params.lora_r) if params.rslora else params.lora_r
    return Part(
        settings={"mean": params.mean, "scale": params.lora_alpha / root, "voices": voices},
        tensors=tensors,
        moves=sum(int(t.count_nonzero()) for name, t in tensors.items() if name.endswith(B)),
        supersedes=True,
    )


def adapters_of(folder: Path, shard: int, sequence: int, files: Sequence[str]) -> dict[str, Tensor]:
    """The adapters after some stages of a sequence; what a later stage trained on wins.

    Args:
        folder: Where the files of the stages lie.
        shard: Of the sequence.
        sequence: Its number.
        files: Hash of the file of each stage.
    """
    found: dict[str, Tensor] = {}
    for stage, hash in enumerate(files):
        found |= read_stage(folder / stage_file(shard, sequence, stage), hash)
    return found


class Voices:
    """All voices of an ensemble, in the forward pass of a model.

    Args:
        model: The base.
        adapters: Of each voice, name of a linear with `A` or `B` behind it -> tensor.
        scale: Factor of every adapter.
        mean: ``probabilities`` or ``logits``.

    Raises:
        ValueError: When adapters are not made for this model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adapters: Sequence[Mapping[str, Tensor]],
        scale: float,
        mean: str,
    ) -> None:
        self.model, self.mean = model, mean
        self._others: list[PreTrainedModel] = []
        self._size = len(new_cache(model).layers)
        self._start: int | None = None
        for _ in adapters[1:]:
            other: Any = twin(model, bare=True)
            other.eval()
            for own, same in zip(model.modules(), other.modules(), strict=True):
                # What is put in a weight's place for one call is in its place here as well.
                same._parameters, same._buffers = own._parameters, own._buffers
            self._others.append(other)
        self.handles: list[RemovableHandle] = []
        for voice, one in zip([model, *self._others], adapters, strict=False):
            self.handles += list(beside(voice, one, scale))

    def put_in(self) -> list[RemovableHandle]:
        """Hook the mean over the voices into the model."""
        if self._others:
            self.handles += [
                self.model.register_forward_pre_hook(_Begin(self), with_kwargs=True),
                self.model.register_forward_hook(_End(self), with_kwargs=True),
            ]
        return self.handles

    def heard(self, own: Tensor, asked: Asked) -> Tensor:
        """The mean, after the model itself has spoken.

        Args:
            own: Its logits.
            asked: The arguments of the call.
        """
        total = self._said(own)
        for number in range(len(self._others)):
            said = self._said(self._spoken(number, asked))
            is_logits = self.mean == "logits"
            total = total + said if is_logits else torch.logaddexp(total, said)
        count = 1 + len(self._others)
        return total / count if self.mean == "logits" else total - math.log(count)

    def _said(self, logits: Tensor) -> Tensor:
        exact = at_least_float32(logits)
        return exact if self.mean == "logits" else exact.log_softmax(-1)

    def _spoken(self, number: int, asked: Asked) -> Tensor:
        """Logits of another voice; its keys and values are kept in the caller's cache."""
        inputs = tokens_of(asked)
        inputs |= {name: asked[name] for name in ALSO if asked.get(name) is not None}
        other, cache = self._others[number], asked.get("past_key_values")
        if cache is None:
            return _logits(other(**inputs, use_cache=False))
        if self._start is None:
            self._start = len(cache.layers)
        start = self._start + number * self._size
        own = copy.copy(cache)
        own.layers = cache.layers[start : start + self._size] or new_cache(other).layers
        logits = _logits(other(**inputs, past_key_values=own, use_cache=True))
        cache.layers[start : start + self._size] = own.layers
        return logits


def attach(model: PreTrainedModel, part: Part) -> Attached:
    """Put an ensemble into the forward pass of its base.

    Raises:
        ValueError: When it is not made for it.
    """
    told, voices = part.settings, part.settings["voices"]
    adapters: list[dict[str, Tensor]] = [{} for _ in voices]
    for name, tensor in part.tensors.items():
        number, _, rest = name.partition("/")
        adapters[int(number)][rest] = tensor.to(model.device)
    return Attached(Voices(model, adapters, float(told["scale"]), str(told["mean"])).put_in())


def beside(
    model: nn.Module, adapters: Mapping[str, Tensor], scale: float
) -> "list[RemovableHandle]":
    """Put adapters beside the linears they are named after.

    Raises:
        ValueError: When one has another shape than its linear.
    """
    handles = []
    for name in sorted({name.rpartition(".")[0] for name in adapters}):
        module = model.get_submodule(name)
        a, b = adapters[f"{name}.{A}"], adapters[f"{name}.{B}"]
        if (a.shape[1], b.shape[0]) != _sizes(module) or a.shape[0] != b.shape[1]:
            raise ValueError(f"an adapter of other sizes than {name}")
        handles.append(module.register_forward_hook(_Add(a, b, scale)))
    return handles


@dataclass(frozen=True, slots=True)
class _Add:
    """After a linear ran: add ``scale B A x``."""

    a: Tensor
    b: Tensor
    scale: float

    def __call__(self, _: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        inner = linear(given[0].to(self.a.dtype), self.a)
        return (output + linear(inner, self.b) * self.scale).to(output.dtype)


@dataclass(frozen=True, slots=True)
class _Begin:
    """Before the model runs: have a cache in which the other voices find room as well."""

    voices: Voices

    def __call__(self, model: Any, given: tuple[Any, ...], named: Asked) -> Any:
        return (), with_cache(model, asked_of(model, given, named))


@dataclass(frozen=True, slots=True)
class _End:
    """After the model ran: let the others speak, and put the mean in its logits' place."""

    voices: Voices

    def __call__(self, model: Any, _: tuple[Any, ...], asked: Asked, output: Any) -> Any:
        output.logits = self.voices.heard(output.logits, asked)
        labels = asked.get("labels")
        if labels is not None:
            size = model.config.get_text_config().vocab_size
            output.loss = model.loss_function(output.logits, labels, vocab_size=size)
        return output


def _logits(output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits


def _sizes(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    raise ValueError(f"an adapter beside a {type(module).__name__}")
