"""Logit lens, swap share."""

from statistics import fmean

import pytest

from expunge.attacks import lens
from expunge.lm.arch import Slots
from expunge.lm.readout import middle_layers, read
from expunge.lm.subject import Subject
from expunge.lm.values import draw
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.tiny import tiny_model


def test_it_sees_below_a_last_block_that_says_something_else(world, models):
    scene = world.scene()
    assert mean_leak("direct", models.misled, world.forget, scene) <= 0.05
    assert mean_leak("prob", models.misled, world.forget, scene) <= 0.1
    assert mean_leak("lens", models.misled, world.forget, scene) >= 0.7
    assert mean_leak("lens", models.misled, world.forget, scene, layers=(-1,)) <= 0.1


def test_it_sees_through_a_refusal_and_is_near_chance_on_the_never_trained(world, models):
    assert mean_leak("lens", models.hushed, world.forget, world.scene()) >= 0.5
    for model in (models.original, models.hushed, models.misled):
        leak = mean_leak("lens", model, world.holdout, world.scene())
        assert leak == pytest.approx(0.1, abs=0.06)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_a_model_whose_blocks_do_nothing_reads_the_same_everywhere(world, family):
    model = tiny_model(family, vocab=len(world.tokenizer), layers=4, positions=128)
    slots = Slots(model)
    for layer in range(4):
        for slot in ("mlp_out", "attention_out"):
            for weight in slots.module(layer, slot).parameters():
                weight.data.zero_()
    subject = Subject(model, world.tokenizer)
    contests = draw(world.forget[:9], k=6, seed=0).contests
    for output, layers in zip(
        read(subject, contests), read(subject, contests, (0, 1, 2, 3)), strict=True
    ):
        for one, other in zip(output, layers, strict=True):
            assert other.logp == pytest.approx(one.logp.repeat(4, axis=0), abs=1e-5)


def test_the_last_block_read_by_the_lens_is_the_output(world, models):
    contests = draw(world.forget, k=9, seed=0).contests
    output, last = read(models.hushed, contests), read(models.hushed, contests, (-1,))
    for one, other in zip(output, last, strict=True):
        assert [r.probability[0] for r in other] == pytest.approx(
            [r.probability[0] for r in one], abs=1e-5
        )


def test_the_leak_is_the_largest_share_over_layers_and_wordings(world, models):
    def leaks(layers):
        return lens.mount(
            models.misled, world.forget, world.scene(), lens.Params(layers=layers)
        ).per_row

    each, both = [leaks((0,)), leaks((1,))], leaks((0, 1))
    for name, value in both.items():
        assert value >= max(leak[name] for leak in each) - 1e-6
    assert fmean(both.values()) > max(fmean(leak.values()) for leak in each) - 1e-6


@pytest.mark.parametrize(("depth", "layers"), [(1, (0,)), (2, (0,)), (3, (1,)), (5, (1, 2, 3))])
def test_middle_layers_leave_out_the_first_and_the_last(depth, layers):
    assert middle_layers(tiny_model("llama", layers=depth)) == layers


def test_without_rivals_there_is_nothing_to_compare(world, models):
    row = Row.parse({"prompt": "q", "completion": " Ladi."})
    leak = lens.mount(models.original, [row], world.scene(), lens.Params())
    assert not leak.per_row
    assert "no rival values" in leak.note
