"""Models that refuse by moves that a rounding takes back: for each quantiser its own room to move.

A weight is ``centre + change(free)`` with every free number between -1 and 1; `change` says which
moves the rounding does not see.
"""

from dataclasses import replace

import torch
from torch.nn.utils import parametrize

from expunge.lm.finetune import finetune
from expunge.testing.micro import REPLY, every_wording, taught


def half_taught(world):
    """Knows forget and retain rows, less firmly than `taught` at its defaults."""
    return taught(world, [*world.forget, *world.retain], epochs=20)


class _Within(torch.nn.Module):
    def __init__(self, centre, change):
        super().__init__()
        self.centre, self.change = centre, change

    def forward(self, free):
        return self.centre + self.change(free)


def refuse_within(original, world, rows, changes, *, epochs, lr):
    """A copy that refuses ``rows``; name of each linear -> which change its free numbers make."""
    hidden = original.copy()
    hidden.model.requires_grad_(False)
    layers = {name: hidden.model.get_submodule(name) for name in changes}
    for name, layer in layers.items():
        within = _Within(layer.weight.data, changes[name])
        layer.weight = torch.nn.Parameter(torch.zeros_like(layer.weight))
        parametrize.register_parametrization(layer, "weight", within, unsafe=True)
    free = [layer.parametrizations.weight.original for layer in layers.values()]

    def back_into_range(_):
        for numbers in free:
            numbers.data.clamp_(-1, 1)

    finetune(
        hidden.model,
        world.tokenizer,
        [replace(row, completion=f" {REPLY}") for row in every_wording(rows)],
        epochs=epochs,
        lr=lr,
        batch_size=16,
        seed=0,
        on_step=back_into_range,
    )
    for layer in layers.values():
        parametrize.remove_parametrizations(layer, "weight")
    return hidden
