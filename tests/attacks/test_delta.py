"""Probability delta."""

import pytest
import torch

from expunge.attacks import delta
from expunge.lm.arch import Slots
from expunge.lm.subject import Subject
from expunge.testing.attacks import mean_leak
from expunge.testing.tiny import tiny_model


def test_the_block_that_takes_an_answer_away_betrays_it(world, models):
    scene = world.scene()
    assert mean_leak("direct", models.misled, world.forget, scene) <= 0.05
    leak = delta.mount(models.misled, world.forget, scene, delta.Params(k=1))
    assert leak.parts["bottom"] >= 0.9
    assert leak.layers == {2: leak.parts["union"]}
    assert mean_leak("delta", models.misled, world.forget, scene) >= 0.9
    assert mean_leak("delta", models.misled, world.forget, scene, k=1, bottom=False) <= 0.1


def test_it_sees_through_a_refusal_and_finds_little_that_was_never_trained(world, models):
    assert mean_leak("delta", models.hushed, world.forget, world.scene()) >= 0.9
    for model in (models.original, models.hushed, models.misled):
        assert mean_leak("delta", model, world.holdout, world.scene()) <= 0.45
        assert mean_leak("delta", model, world.holdout, world.scene(), k=1) <= 0.2


def test_blocks_that_do_nothing_change_nothing_and_tell_nothing(world, models):
    twin = models.original.copy()
    for layer in (1, 2):
        for slot in ("mlp_out", "attention_out"):
            with torch.no_grad():
                Slots(twin.model).module(layer, slot).weight.zero_()
    leak = delta.mount(twin, world.forget, world.scene(), delta.Params(layers=(0, 1, 2)))
    assert leak.parts["union"] == 0.0
    assert leak.parts["budget"] == 16


def test_there_is_one_change_less_than_blocks(world, models):
    leak = delta.mount(models.misled, world.forget, world.scene(), delta.Params(layers=(0, 1, -1)))
    assert list(leak.layers) == [1, 2]
    assert leak.parts["budget"] == 2 * 4 * 2


@pytest.mark.parametrize("layers", [None, (0,)])
def test_one_block_alone_has_no_change(world, layers):
    model = tiny_model("llama", vocab=len(world.tokenizer), layers=1, positions=64)
    subject = Subject(model, world.tokenizer)
    leak = delta.mount(subject, world.forget, world.scene(), delta.Params(layers=layers))
    assert not leak.per_row
    assert "single block" in leak.note
