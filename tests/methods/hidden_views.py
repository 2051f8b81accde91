"""Views over hidden states given by hand, for the losses that look at nothing else."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from expunge.engine.forward import Inputs
from expunge.engine.view import View


class Held:
    """A source with fixed block outputs, kept for their gradient."""

    def __init__(self, states: Mapping[int, Tensor]) -> None:
        self.states = {layer: state.clone().requires_grad_() for layer, state in states.items()}

    def hidden(self, inputs: Inputs, layers: Sequence[int]) -> dict[int, Tensor]:
        return {layer: self.states[layer] for layer in layers}

    @property
    def blocks(self) -> int:
        return sum(layer >= 0 for layer in self.states)


def held_view(
    now: Held, before: Held | None = None, tensors: dict[str, Tensor] | None = None
) -> View:
    """A view of ``now`` with ``before`` as its anchor; all positions real and supervised, or as
    the tensors of a batch say."""
    rows, width = next(iter(now.states.values())).shape[:2]
    ids = torch.zeros(rows, width, dtype=torch.long)
    made = tensors or {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    inputs = Inputs.from_labels(
        made["input_ids"], made["attention_mask"], made["labels"], torch.arange(rows)
    )
    return View(inputs, now, None if before is None else lambda: before)


def random_states(seed: int, layers: Sequence[int], width: int = 6) -> dict[int, Tensor]:
    """Normal [5, 9, d] for each layer: the shape of the random batches of these tests."""
    draw = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(5, 9, width, generator=draw) for layer in layers}
