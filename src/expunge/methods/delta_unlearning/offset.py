"""The offset of two small models, and how it gets into and out of a change."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.engine.assistants import Ensemble
from expunge.engine.runtime import Part
from expunge.engine.small_models import built, settings_of, stored_type, weights_of

AFTER, BEFORE = "assistant", "before"
"""Names of M_a and M_o."""


@dataclass(frozen=True, slots=True)
class Offset:
    """``z_big + alpha (z_a - z_o)``; of the ``top_k`` likeliest tokens alone, where asked.

    Attributes:
        alpha: Factor of the offset.
        top_k: How many tokens get it; None: all. While gradients are taken all do.
    """

    alpha: float
    top_k: int | None

    @property
    def is_silent(self) -> bool:
        """Whether the model says what it would say alone."""
        return self.alpha == 0

    def __call__(self, own: Tensor, said: Mapping[str, Tensor]) -> Tensor:
        """[..., V]."""
        moved = own + self.alpha * (said[AFTER] - said[BEFORE]).to(own.dtype)
        if self.top_k is None or torch.is_grad_enabled():
            return moved
        places = own.topk(min(self.top_k, own.shape[-1]), -1).indices
        return own.scatter(
            -1, places, shared_anew(own.gather(-1, places), moved.gather(-1, places))
        )


def shared_anew(before: Tensor, after: Tensor) -> Tensor:
    """``after``, shifted so that these tokens have together what they had ``before``.

    Args:
        before: [..., k], logits.
        after: [..., k].
    """
    return after + before.logsumexp(-1, keepdim=True) - after.logsumexp(-1, keepdim=True)


def part_of(ensemble: Ensemble) -> Part:
    """Both small models and the rule, for the change."""
    rule, dtype = ensemble.rule, stored_type(list(ensemble.voice(BEFORE).parameters()))
    assert isinstance(rule, Offset)  # noqa: S101
    told: dict[str, Any] = {n: settings_of(ensemble.voice(n)) for n in (AFTER, BEFORE)}
    small = {name: weights_of(ensemble.voice(name), dtype) for name in told}
    changed = sum(int((small[AFTER][n] != small[BEFORE][n]).sum()) for n in small[BEFORE])
    return Part(
        settings={**asdict(rule), **told},
        tensors={f"{name}/{n}": tensor for name in small for n, tensor in small[name].items()},
        moves=0 if rule.is_silent else changed,
    )


def weights_in(part: Part, name: str) -> dict[str, Tensor]:
    """Those of one of the small models."""
    own = f"{name}/"
    return {n.removeprefix(own): t for n, t in part.tensors.items() if n.startswith(own)}


def ensemble_for(model: PreTrainedModel, part: Part) -> Ensemble:
    """The small models and the rule of a change, for the model they were trained beside.

    Raises:
        ValueError: When they are not made for it.
    """
    told: Any = part.settings
    top_k = None if told["top_k"] is None else int(told["top_k"])
    voices = {name: built(told[name], weights_in(part, name), model) for name in (AFTER, BEFORE)}
    return Ensemble(model, voices, Offset(float(told["alpha"]), top_k))
