"""AdamW over float32 masters of weights that compute in bfloat16."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW


class MasterAdamW(AdamW):
    """Moves float32 masters and copies them down to the weights after every step.

    Its groups hold the masters; gradients are read from the weights, where clipping and masks have
    already been. The masters are part of ``state_dict``: a resumed run goes on from what the
    weights were before rounding.

    Args:
        groups: Groups of weights as any optimiser has them, each with its options.
        masters: Weight -> its master.
    """

    def __init__(
        self, groups: Iterable[Mapping[str, Any]], masters: Mapping[nn.Parameter, Tensor]
    ) -> None:
        asked = [dict(group) for group in groups]
        self._weights: list[nn.Parameter] = [p for group in asked for p in group["params"]]
        self._masters: list[Tensor] = [masters[p] for p in self._weights]
        for group in asked:
            group["params"] = [masters[p] for p in group["params"]]
        super().__init__(asked)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move the masters by the weights' gradients, then round them into the weights."""
        pairs = list(zip(self._weights, self._masters, strict=True))
        for weight, master in pairs:
            master.grad = None if weight.grad is None else weight.grad.to(master.dtype)
        loss: float | None = super().step(closure)
        for weight, master in pairs:
            master.grad = None
            weight.copy_(master)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state with the masters."""
        return {**super().state_dict(), "masters": self._masters}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take a state back, masters included; the weights follow them."""
        rest = {name: value for name, value in state_dict.items() if name != "masters"}
        super().load_state_dict(rest)
        triples = zip(self._weights, self._masters, state_dict["masters"], strict=True)
        for weight, master, kept in triples:
            master.copy_(kept)
            weight.copy_(master)
