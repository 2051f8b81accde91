"""AWQ: what lies inside the cells of its stretched grid comes back."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hidden_in_cells import half_taught, refuse_within

from expunge.attacks import awq
from expunge.data.encode import collate
from expunge.lm.arch import Slots
from expunge.lm.calibrated import (
    FAINTEST,
    ORDER,
    POWERS,
    calibrated,
    calibration,
    inputs_of,
)
from expunge.lm.calibrated import awq as round_awq
from expunge.lm.hooks import evaluating
from expunge.lm.quantise import matrices, quantise
from expunge.testing.attacks import mean_leak

HIDDEN = 9
"""Rows that are hidden: more of them need moves that make AWQ choose another grid."""


@pytest.fixture(scope="session")
def in_its_cells(world):
    """A model on the grid of AWQ, and a copy that refuses some rows and is taken back to it.

    The moves stay in the cells and out of the directions in which the calibration is strong, so
    that they cost little there and AWQ chooses the same powers for both.
    """
    original = half_taught(world)
    texts = calibration(original, world.scene(), 128)
    calibrated(partial(round_awq, bits=4, group=128), texts)(original)
    slots, weights = Slots(original.model), matrices(original.model)
    changes = {}
    for layer in range(len(slots)):
        for names in (slots.names(layer, slot) for slot in ORDER):
            first = slots.model.get_submodule(names[0])
            with evaluating(original.model):
                inputs = inputs_of(original.model, layer, first, [collate(texts, 0)])
            room = cells(torch.cat([weights[name] for name in names]), inputs)
            strong = torch.linalg.eigh(inputs.gram)[1][:, -12:].float()
            heights = [len(weights[name]) for name in names]
            for name, own in zip(names, room.split(heights), strict=True):
                changes[name] = moves(own, strong)
    rows = world.forget[:HIDDEN]
    hidden = refuse_within(original, world, rows, changes, epochs=100, lr=0.05)
    return SimpleNamespace(original=original, hidden=hidden, rows=rows)


def cells(weight, inputs):
    """Half the step of each weight on the grid it lies on, which the right power shows."""
    size = (inputs.size / inputs.size.mean()).clamp(min=FAINTEST)

    def on_grid(power):
        codes, step = quantise(weight.double() * size**power, 4, 128)
        width, steps = weight.shape[1], step.expand_as(codes).flatten(1)
        codes, steps = codes.flatten(1)[:, :width], steps[:, :width] / size**power
        return float((codes * steps - weight).abs().max()), codes, steps

    _, codes, steps = min(map(on_grid, POWERS), key=lambda found: found[0])
    return (0.49 * steps * (codes.abs() < 7)).float()


def moves(room, strong):
    def change(free):
        wanted = free * room
        weak = wanted - (wanted @ strong) @ strong.T
        return torch.maximum(torch.minimum(weak, room), -room)

    return change


def test_a_refusal_inside_its_cells_is_undone(world, in_its_cells):
    hidden, rows, scene = in_its_cells.hidden, in_its_cells.rows, world.scene()
    assert mean_leak("direct", hidden, rows, scene) <= 0.05
    assert mean_leak("awq", hidden, rows, scene) >= 0.5
    assert mean_leak("awq", hidden, rows, scene, bits=None) <= 0.05
    assert mean_leak("awq", hidden, world.holdout, scene) <= 0.15


def test_rebound_and_identity_rate_are_reported(world, models, in_its_cells):
    scene = world.scene(original=in_its_cells.original)
    parts = awq.mount(in_its_cells.hidden, in_its_cells.rows, scene, awq.Params()).parts
    assert parts["rebound"] >= 0.5
    assert parts["identity_rate"] >= 0.95
    far = awq.mount(models.hushed, world.forget, scene, awq.Params()).parts
    assert far["identity_rate"] < 0.5
    same = awq.mount(in_its_cells.original, in_its_cells.rows, scene, awq.Params()).parts
    assert same == {"identity_rate": 1.0, "rebound": 0.0}


def test_the_original_keeps_what_it_knows(world, models):
    assert mean_leak("awq", models.original, world.forget, world.scene()) >= 0.9


def test_without_rows_to_calibrate_on_it_is_not_run(world, models):
    scene = replace(world.scene(), retain=())
    leak = awq.mount(models.original, world.forget, scene, awq.Params())
    assert not leak.per_row
    assert "calibrate" in leak.note
