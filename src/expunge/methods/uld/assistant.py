"""The assistant: how it is made of the model, how it learns by itself, how it is subtracted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from expunge.core.rng import derive
from expunge.engine.adapter import with_adapter
from expunge.engine.assistants import Ensemble, ensemble_of
from expunge.engine.covered import COVERS, covers
from expunge.engine.precision import precision_on
from expunge.engine.runtime import Part
from expunge.engine.slots.mask import Mask
from expunge.engine.small_models import blocks_of, cut, settings_of, stored_type, weights_of
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.arch import Slots
from expunge.lm.load import quiet
from expunge.lm.near_top import near_top
from expunge.methods.uld.dropout import KeyedDropout, Keys, keys_of
from expunge.requests.rows import Row

if TYPE_CHECKING:
    from expunge.methods.uld import Params

ASSISTANT = "assistant"
"""Its name among the voices, in the part, and of its folder."""

SEED = "uld.seed"


@dataclass(frozen=True, slots=True)
class Subtracting:
    """``z + w [ v in S ] z_a``.

    Attributes:
        weight: w.
        top: t, which says how far S reaches; 0: S is everything.
        center: Whether the mean is taken from z_a first.
    """

    weight: float
    top: float
    center: bool

    @property
    def is_silent(self) -> bool:
        """Whether the model says what it would say alone."""
        return self.weight == 0

    def __call__(self, own: Tensor, said: Mapping[str, Tensor]) -> Tensor:
        """[..., V]."""
        assistant = said[ASSISTANT].to(own.dtype)
        if self.center:
            assistant = assistant - assistant.mean(-1, keepdim=True)
        return own + self.weight * assistant.where(likely(own, self.top), 0.0)


def likely(logits: Tensor, top: float) -> Tensor:
    """S: the tokens no further from the likeliest one than ``log t``, and at least ``t V`` of them.

    Args:
        logits: [..., V]; what is compared is their distance, so they need no normalising.
        top: t; 0 takes all tokens.

    Returns:
        [..., V] bool.
    """
    if top == 0:
        return torch.ones_like(logits, dtype=torch.bool)
    return near_top(logits, math.ceil(top * logits.shape[-1]), math.log(top))


class Assistant(Ensemble):
    """The assistant while it learns: a few blocks of the model and low-rank factors on them."""

    def __init__(
        self,
        model: PreTrainedModel,
        small: PreTrainedModel,
        rule: Subtracting,
        keys: Keys,
        seed: int = 0,
    ) -> None:
        layers = [module for module in small.modules() if isinstance(module, LoraLayer)]
        factors = nn.ModuleList()
        for layer in layers:
            factors += [*layer.lora_A.values(), *layer.lora_B.values()]
        super().__init__(model, {ASSISTANT: small}, rule, own={"factors": factors})
        self._layers, self.keys, self.seed = (layers,), keys, seed

    @classmethod
    def made(cls, task: Task, params: "Params") -> "Assistant":
        """Cut the assistant out of the model and put factors on it, which say nothing yet."""
        model = task.model
        small = cut(model, blocks_of(params.blocks, len(Slots(model))))
        with quiet():
            with_adapter(small, params, _inside(small, params.layers), task.seed)  # in place
        keys = Keys()
        for name, module in small.named_modules():
            if isinstance(module, LoraLayer) and params.dropout:
                for adapter in module.lora_dropout:
                    salted = KeyedDropout(params.dropout, derive(task.seed, "uld", name), keys)
                    module.lora_dropout[adapter] = salted
        task.state[SEED] = task.seed
        task.record["blocks"] = len(Slots(small))
        rule = Subtracting(params.weight, params.top, params.center)
        return cls(model, small, rule, keys, task.seed)

    def part(self, rows: Sequence[Row] = ()) -> Part:
        """The assistant with its factors multiplied out, for the change.

        Args:
            rows: What it was taught.
        """
        small, rule = self.voice(ASSISTANT), self.rule
        assert isinstance(rule, Subtracting)  # noqa: S101
        moved = sum(
            int(up.weight.count_nonzero())
            for layer in self._layers[0]
            for up in layer.lora_B.values()
        )
        return Part(
            settings={
                **asdict(rule),
                ASSISTANT: settings_of(small),
                COVERS: covers(rows, self.seed),
            },
            tensors=multiplied_out(small),
            moves=0 if rule.is_silent else moved,
        )


def _inside(small: PreTrainedModel, layers: Sequence[int] | None) -> Mask:
    """The linears of some blocks may get factors; of all of them where none are named."""
    slots = Slots(small)
    blocks = layers if layers is not None else range(len(slots))
    inside = tuple(f"{slots.names(layer, 'block')[0]}." for layer in blocks)
    return {f"{name}.weight": name.startswith(inside) for name in slots.linears()}


def multiplied_out(small: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of a model with the products of its low-rank factors added, as it was stored."""
    plain = [weight.detach() for name, weight in small.named_parameters() if ".lora_" not in name]
    dtype = stored_type(plain)
    exact = weights_of(small, torch.promote_types(plain[0].dtype, torch.float32))
    for name, module in small.named_modules():
        if isinstance(module, LoraLayer):
            weight = exact[f"{name}.base_layer.weight"]
            for adapter in module.lora_A:
                weight += module.get_delta_weight(adapter).detach().to(weight)
    return {
        name.replace(".base_layer.", "."): tensor.to(dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in exact.items()
        if ".lora_" not in name
    }


def assistant_of(model: Any) -> Assistant | None:
    """The assistant a model is trained with, if it has one."""
    found = ensemble_of(model)
    return found if isinstance(found, Assistant) else None


def alone(step: Step, name: str, params: "Params") -> View:
    """A view of rows under the assistant alone; of a model without one, under the model itself."""
    view: View = getattr(step, name)
    if view.is_counted:
        return view
    keys = keys_of(view, int(step.state.get(SEED, 0)), step.index, name)
    return view.through(_Finding(keys, params))


@dataclass(frozen=True, slots=True)
class _Finding:
    """From a model to its assistant, as it learns."""

    keys: Tensor
    params: "Params"

    def __call__(self, model: Any) -> Any:
        assistant = assistant_of(model)
        if assistant is None:
            return model
        is_cast = precision_on(self.params, self.keys.device.type) == "bf16"
        return _Alone(assistant, self.keys, is_cast=is_cast)


class _Alone(nn.Module):
    """The assistant by itself: while gradients are taken, with dropout."""

    def __init__(self, assistant: Assistant, keys: Tensor, *, is_cast: bool) -> None:
        super().__init__()
        self.small = assistant.voice(ASSISTANT)
        self._about = (assistant.keys, keys)
        self._is_cast = is_cast

    def forward(self, **inputs: Any) -> Any:
        """What it says."""
        shared, keys = self._about
        shared.now = keys if torch.is_grad_enabled() else None
        try:
            device = keys.device.type
            with torch.autocast(device, dtype=torch.bfloat16, enabled=self._is_cast):
                return self.small(**inputs)
        finally:
            shared.now = None

    def get_base_model(self) -> nn.Module:
        """The causal language model itself, as adapters name it."""
        return self.small
