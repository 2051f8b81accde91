"""Applying a mask: weights that may not move end bit-identical."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from expunge.engine.slots.mask import Mask


class AppliedMask:
    """Holds the weights a mask freezes.

    Whole tensors stop asking for gradients. Where a mask goes through a tensor, its gradient is
    zeroed before the clip (else frozen entries eat the norm), and its frozen entries are put back
    after the optimiser's step: weight decay and old momentum move them even without a gradient.

    Attributes:
        masters: What the optimiser moves in place of a weight, where it does; held likewise.
    """

    def __init__(self, model: nn.Module, mask: Mask) -> None:
        self.masters: Mapping[nn.Parameter, Tensor] = {}
        self._partial: dict[nn.Parameter, Tensor] = {}
        self._kept: dict[nn.Parameter, Tensor] = {}
        for name, parameter in model.named_parameters():
            allowed = mask.get(name, True)
            if isinstance(allowed, Tensor) and allowed.any() and parameter.requires_grad:
                self._partial[parameter] = allowed.to(parameter.device)
                self._kept[parameter] = parameter.detach()[~self._partial[parameter]].clone()
            elif not isinstance(allowed, bool) or not allowed:
                parameter.requires_grad_(False)

    def on_gradients(self) -> None:
        """Zero the gradient of frozen entries."""
        for parameter, allowed in self._partial.items():
            if parameter.grad is not None:
                parameter.grad.mul_(allowed)

    @torch.no_grad()
    def on_weights(self) -> None:
        """Put frozen entries back."""
        for parameter, allowed in self._partial.items():
            for held in (parameter, self.masters.get(parameter, parameter)):
                held[~allowed] = self._kept[parameter].to(held.dtype)


def moving(model: nn.Module) -> Mapping[str, int]:
    """Names and sizes of the parameters that ask for a gradient."""
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
