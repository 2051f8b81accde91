"""GPTQ: what its pushes of the error take back."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hidden_in_cells import refuse_within

from expunge.attacks import gptq
from expunge.data.encode import collate
from expunge.lm.arch import Slots
from expunge.lm.calibrated import ORDER, calibration, inputs_of, inverse_factor
from expunge.lm.hooks import evaluating
from expunge.lm.quantise import matrices, quantise, quantise_rtn
from expunge.testing.attacks import mean_leak


@pytest.fixture(scope="session")
def in_its_cells(world, models):
    """The original on the grid of 4 bits, and a refusing copy that GPTQ takes back to it.

    GPTQ gives the codes of W where its running weights stay within half a step of W, that is for
    W + R (D^-1 U) with every ``|R|`` below half a step, U its factor and D the diagonal of U.
    """
    original = models.original.copy()
    quantise_rtn(original.model, 4, 128)
    slots, weights = Slots(original.model), matrices(original.model)
    batches = [collate(calibration(original, world.scene(), 128), 0)]
    changes = {}
    for layer in range(len(slots)):
        for names in (slots.names(layer, slot) for slot in ORDER):
            first = slots.model.get_submodule(names[0])
            with evaluating(original.model):
                factor = inverse_factor(2 * inputs_of(original.model, layer, first, batches).gram)
            pushes = (factor / factor.diagonal()[:, None]).float()
            for name in names:
                changes[name] = pushed(weights[name], pushes)
    hidden = refuse_within(original, world, world.forget, changes, epochs=60, lr=0.1)
    return SimpleNamespace(original=original, hidden=hidden)


def pushed(weight, pushes):
    codes, step = quantise(weight, 4, 128)
    inner = (
        codes.flatten(1)[:, : weight.shape[1]].abs() < 7
    )  # the largest weight of a channel decides its step
    room = 0.45 * inner * step[:, 0]
    return lambda free: inner * ((free * room) @ pushes)


def test_a_refusal_in_its_cells_is_undone_by_it_and_not_by_plain_rounding(world, in_its_cells):
    hidden, scene = in_its_cells.hidden, world.scene()
    assert mean_leak("direct", hidden, world.forget, scene) <= 0.05
    assert mean_leak("gptq", hidden, world.forget, scene) >= 0.5
    assert mean_leak("gptq", hidden, world.forget, scene, bits=None) <= 0.05
    assert mean_leak("quant4", hidden, world.forget, scene) <= 0.05
    assert mean_leak("gptq", hidden, world.holdout, scene) <= 0.15


def test_the_original_keeps_what_it_knows(world, models):
    assert mean_leak("gptq", models.original, world.forget, world.scene()) >= 0.9


def test_rebound_and_identity_rate_are_reported(world, models, in_its_cells):
    scene = world.scene(original=in_its_cells.original)
    parts = gptq.mount(in_its_cells.hidden, world.forget, scene, gptq.Params()).parts
    far = gptq.mount(models.hushed, world.forget, scene, gptq.Params()).parts
    assert parts["rebound"] >= 0.5
    assert parts["identity_rate"] > far["identity_rate"]
    same = gptq.mount(in_its_cells.original, world.forget, scene, gptq.Params()).parts
    assert same == {"identity_rate": 1.0, "rebound": 0.0}


def test_it_is_calibrated_on_rows_to_be_kept_and_no_others(world, models):
    texts = calibration(models.original, world.scene(), 8)
    read = [models.original.encoder.decode(text.ids) for text in texts]
    kept = {f"{row.prompt}{row.completion}" for row in world.retain}
    assert len(read) == 8
    assert set(read) <= kept


def test_without_rows_to_calibrate_on_it_is_not_run(world, models):
    scene = replace(world.scene(), retain=())
    leak = gptq.mount(models.original, world.forget, scene, gptq.Params())
    assert not leak.per_row
    assert "calibrate" in leak.note


def test_more_bits_lose_less(world, models):
    def distance(bits):
        scene = world.scene(original=models.original)
        leak = gptq.mount(models.original, world.holdout, scene, gptq.Params(bits=bits))
        return leak.parts["rebound"], sum(leak.per_row.values())

    direct = mean_leak("direct", models.original, world.holdout, world.scene())
    assert distance(8) == (pytest.approx(0), pytest.approx(direct * len(world.holdout)))


def test_the_caller_s_random_state_and_model_stay(world, models):
    before = [weight.clone() for weight in models.original.model.parameters()]
    state = torch.get_rng_state()
    gptq.mount(models.original, world.forget[:3], world.scene(), gptq.Params(sequences=4))
    assert torch.equal(state, torch.get_rng_state())
    assert all(map(torch.equal, before, models.original.model.parameters()))
