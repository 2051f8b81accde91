"""Rounding to 8 bits: fine enough that little below it is left to come back."""

from expunge.attacks import quant8
from expunge.lm.quantise import quantise_rtn
from expunge.testing.attacks import mean_leak


def test_it_asks_the_rounded_model(world, models):
    rounded = models.hushed.copy()
    quantise_rtn(rounded.model, 8, None)
    scene = world.scene()
    direct = mean_leak("direct", rounded, world.holdout, scene)
    assert mean_leak("quant8", models.hushed, world.holdout, scene) == direct
    assert mean_leak("quant8", models.original, world.forget, scene) >= 0.9


def test_a_model_that_is_the_original_has_its_codes(world, models):
    scene = world.scene(original=models.original)
    leak = quant8.mount(models.original, world.forget, scene, quant8.Params())
    assert leak.parts == {"identity_rate": 1.0, "rebound": 0.0}


def test_a_change_below_half_a_step_of_8_bits_is_undone(world, models):
    """On the grid of 8 bits, moved by less than half a step, the codes are the original's."""
    original = models.original.copy()
    quantise_rtn(original.model, 8, None)
    moved = original.copy()
    for name, weight in moved.model.named_parameters():
        if "proj" in name:
            top = weight.data.abs().amax(1, keepdim=True)
            weight.data += (weight.data.abs() < top) * 0.4 * top / 127
    scene = world.scene(original=original)
    leak = quant8.mount(moved, world.forget, scene, quant8.Params())
    assert leak.parts["identity_rate"] == 1.0
