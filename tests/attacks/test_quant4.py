"""Rounding to 4 bits: what lies below the grid comes back."""

import pytest
import torch

from expunge.attacks import quant4
from expunge.lm.quantise import quantise
from expunge.testing.attacks import mean_leak


def test_the_example_of_the_card_moves_no_code():
    before, after = torch.tensor([[-1, 0.33, 0.34, 0.9]]), torch.tensor([[-1, 0.33, 0.355, 0.9]])
    (codes, scale), (moved, _) = quantise(before, 4), quantise(after, 4)
    assert codes.flatten().tolist() == [-7, 2, 2, 6]
    assert scale.item() == pytest.approx(1 / 7)
    assert torch.equal(codes, moved)


def test_a_refusal_below_the_grid_is_undone_by_it_and_not_by_a_finer_one(world, below_grid):
    scene = world.scene()
    assert mean_leak("direct", below_grid.hidden, world.forget, scene) <= 0.05
    assert mean_leak("quant4", below_grid.hidden, world.forget, scene) >= 0.9
    assert mean_leak("quant8", below_grid.hidden, world.forget, scene) <= 0.05
    assert mean_leak("quant4", below_grid.hidden, world.holdout, scene) <= 0.15


def test_rebound_and_identity_rate_say_why(world, models, below_grid):
    scene = world.scene(original=below_grid.original)
    parts = quant4.mount(below_grid.hidden, world.forget, scene, quant4.Params()).parts
    assert parts["identity_rate"] == 1.0
    assert parts["rebound"] >= 0.9
    far = quant4.mount(models.hushed, world.forget, scene, quant4.Params()).parts
    assert far["identity_rate"] < 0.95
    assert far["rebound"] <= 0.1


def test_what_the_original_knows_survives_the_rounding(world, models):
    assert mean_leak("quant4", models.original, world.forget, world.scene()) >= 0.9


def test_a_coarser_group_gives_other_codes(world, models):
    scene = world.scene(original=models.original)
    rates = [
        quant4.mount(models.hushed, world.forget, scene, quant4.Params(group=group)).parts
        for group in (8, 64)
    ]
    assert rates[0]["identity_rate"] < rates[1]["identity_rate"]
