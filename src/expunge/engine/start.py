"""The model as it was at the start of a run, for the price of the weights that move."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from expunge.lm.arch import Slots, base_of

ALIKE = 1e-5
"""Largest difference between two ways to the same logits, relative to the largest logit."""


class Start(nn.Module):
    """A model with some of its weights put back, for the length of every call.

    All other weights, the buffers, the hooks and the precision are the model's own.

    Args:
        model: A causal language model, at its start.
        names: Names of the parameters to keep as they are now.
    """

    def __init__(self, model: nn.Module, names: Collection[str]) -> None:
        super().__init__()
        self.model = model
        self.kept = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if name in names
        }

    def forward(self, **inputs: Any) -> Any:
        """What the model answered at the start."""
        return functional_call(self.model, self.kept, (), inputs)

    def get_base_model(self) -> nn.Module:
        """The causal language model itself, as adapters name it."""
        return base_of(self.model)


def moving_head(model: nn.Module) -> set[str]:
    """Names of the vocabulary projection's parameters that ask for a gradient.

    A tied projection moves under the name of the embedding.
    """
    own = {id(parameter) for parameter in Slots(model).head.parameters()}
    return {name for name, p in model.named_parameters() if id(p) in own and p.requires_grad}


@contextmanager
def handed_over(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what the model hands to its vocabulary projection in each call, [N, d]."""
    seen: list[Tensor] = []
    handle = Slots(model).head.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].detach().flatten(0, -2))
    )
    try:
        yield seen
    finally:
        handle.remove()


@torch.no_grad()
def logits_of(model: nn.Module, handed: Tensor) -> Tensor:
    """Logits from what was handed to the vocabulary projection.

    The model's own forward computes them, so its caps and scales apply; only the decoder below
    does not run.

    Args:
        model: A causal language model.
        handed: [N, d], hidden states as the forward gets them from the decoder.

    Returns:
        [N, V] in at least float32.
    """
    ids = torch.zeros(1, len(handed), dtype=torch.long, device=handed.device)
    with _answering(base_of(model).base_model, handed[None]):  # type: ignore[arg-type]
        logits: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits if logits.dtype == torch.float64 else logits.float()


def is_replayed(model: nn.Module, handed: Tensor, logits: Tensor) -> bool:
    """Whether `logits_of` makes of ``handed`` the logits that a real forward pass made."""
    if len(handed) != len(logits):
        return False
    try:
        again = logits_of(model, handed)
    except (AttributeError, TypeError, RuntimeError):  # the family wants more of its decoder
        return False
    largest = float(logits.abs().max()) if logits.numel() else 0.0
    return bool(((again - logits).abs() <= ALIKE * largest).all())


@contextmanager
def _answering(decoder: nn.Module, hidden: Tensor) -> Iterator[None]:
    """The decoder answers ``hidden`` [1, N, d] without running."""
    own = vars(decoder).get("forward")

    def answer(*_: Any, **__: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden)

    vars(decoder)["forward"] = answer
    try:
        yield
    finally:
        del vars(decoder)["forward"]
        if own is not None:
            vars(decoder)["forward"] = own
