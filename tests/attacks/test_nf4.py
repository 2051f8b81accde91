"""Rounding to a code of 4-bit floats: what lies inside its cells comes back."""

from types import SimpleNamespace

import pytest
import torch
from hidden_in_cells import half_taught, refuse_within

from expunge.attacks import nf4
from expunge.lm.codebook import boundaries, encode, round_to_code
from expunge.lm.quantise import matrices
from expunge.testing.attacks import mean_leak


@pytest.fixture(scope="session")
def in_cells(world):
    """A model on the grid of nf4, and a copy that refuses without leaving its cells."""
    original = half_taught(world)
    round_to_code(original.model, "nf4")
    changes = {name: moves(weight) for name, weight in matrices(original.model).items()}
    hidden = refuse_within(original, world, world.forget, changes, epochs=60, lr=0.1)
    return SimpleNamespace(original=original, hidden=hidden)


def moves(weight):
    """Up to 95% of the way to the next boundary; a block's largest weight decides its scale."""
    places, scale = encode(weight, "nf4")
    edges = torch.cat([torch.tensor([-1.0]), boundaries("nf4").float(), torch.tensor([1.0])])
    inner = (places > 0) & (places < 15)
    down = 0.95 * inner * (weight - edges[places.long()] * scale)
    up = 0.95 * inner * (edges[places.long() + 1] * scale - weight)
    return lambda free: free * torch.where(free > 0, up, down)


def test_a_refusal_inside_the_cells_is_undone(world, in_cells):
    scene = world.scene(original=in_cells.original)
    assert mean_leak("direct", in_cells.hidden, world.forget, scene) <= 0.05
    assert mean_leak("nf4", in_cells.hidden, world.forget, scene) >= 0.9
    assert mean_leak("nf4", in_cells.hidden, world.forget, scene, code="none") <= 0.05
    assert mean_leak("nf4", in_cells.hidden, world.holdout, scene) <= 0.15


def test_identity_rate_says_why(world, models, in_cells):
    scene = world.scene(original=in_cells.original)
    parts = nf4.mount(in_cells.hidden, world.forget, scene, nf4.Params()).parts
    assert parts["identity_rate"] == 1.0
    assert parts["rebound"] >= 0.9
    other = nf4.mount(models.hushed, world.forget, scene, nf4.Params()).parts
    assert other["identity_rate"] < 0.5


def test_the_two_codes_round_differently(world, in_cells):
    scene = world.scene(original=in_cells.original)
    parts = nf4.mount(in_cells.hidden, world.forget, scene, nf4.Params(code="fp4")).parts
    assert parts["identity_rate"] < 1.0


@pytest.mark.parametrize("code", ["nf4", "fp4"])
def test_what_the_original_knows_survives(world, models, code):
    assert mean_leak("nf4", models.original, world.forget, world.scene(), code=code) >= 0.9


def test_left_as_they_are_the_weights_give_the_direct_answers(world, models):
    leak = nf4.mount(models.hushed, world.forget, world.scene(), nf4.Params(code="none"))
    assert leak.parts == {"rebound": 0.0}
