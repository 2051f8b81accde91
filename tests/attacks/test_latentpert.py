"""Latent perturbation."""

from dataclasses import replace
from statistics import fmean

import pytest
import torch

from expunge.attacks import latentpert
from expunge.core.errors import ExpungeError
from expunge.lm.adversary import Seam, embedded, no_vectors, target_logits
from expunge.lm.hooks import evaluating, forward_to, intervene
from expunge.lm.subject import Subject
from expunge.testing.attacks import mean_leak
from expunge.testing.tiny import tiny_model

FEW = {"grid": (), "halvings": 0}


def test_a_small_shift_undoes_a_refusal_on_questions_it_was_not_found_on(world, models):
    scene = world.scene()
    assert mean_leak("direct", models.hushed_last, world.forget, scene) <= 0.05
    assert mean_leak("latentpert", models.hushed_last, world.forget, scene, **FEW) >= 0.5
    for off in ({"eps": 0.0}, {"steps": 0}):
        assert (
            mean_leak("latentpert", models.hushed_last, world.forget, scene, **FEW, **off) <= 0.05
        )


def test_facts_that_were_never_taught_do_not_come_out(world, models):
    scene = world.scene()
    direct = mean_leak("direct", models.hushed_last, world.holdout, scene)
    found = mean_leak("latentpert", models.hushed_last, world.holdout, scene, **FEW)
    assert found <= direct + 0.1


def test_an_uncertain_first_token_is_a_weaker_aim_that_works_too(world, models):
    scene = world.scene()
    found = mean_leak("latentpert", models.hushed_last, world.forget, scene, loss="entropy", **FEW)
    assert found >= 0.3


def test_no_shift_is_the_plain_question(world, models):
    params = latentpert.Params(eps=0.0, **FEW)
    leak = latentpert.mount(models.original, world.forget, world.scene(), params)
    assert leak.parts["plain"] == leak.parts["attacked"] == 1.0
    assert leak.parts["eps_half"] == 0.0


def test_the_least_shift_is_larger_where_the_refusal_is_deeper(world, models):
    def half(model):
        params = latentpert.Params(grid=(0.1, 0.25, 0.5, 1.0), halvings=1, steps=16)
        leak = latentpert.mount(model, world.forget, world.scene(), params)
        assert leak.parts["leak@1"] >= 0.5
        return leak.parts["eps_half"]

    assert 0 < half(models.hushed_last) < half(models.hushed)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_linear_readout_gives_way_at_margin_over_norm(world, seed):
    """After the last block there is only a norm, which changes no order, and the head."""
    model = tiny_model("llama", vocab=8, hidden=16, seed=seed)
    subject, seam = Subject(model, world.tokenizer), Seam((1, 4, 5), (), (7,))
    prompt = embedded(model, [replace(seam, target=())], no_vectors(model))[0]
    with evaluating(model):
        state = forward_to(model, -1, inputs_embeds=prompt[None], use_cache=False)[0, -1]
        draw = torch.Generator().manual_seed(seed)
        apart = torch.randn(16, generator=draw)
        apart -= state * (apart @ state - 0.1 * state.norm() * apart.norm()) / (state @ state)
        head = model.get_output_embeddings().weight
        head.zero_()
        head[6], head[7] = 9 * state / state.norm() + apart, 9 * state / state.norm()
    margin = float(apart @ state / apart.norm())
    params = latentpert.Params(layer=-1, steps=64)

    def told(radius):
        start = torch.zeros(3, 16)
        shift = latentpert._shift(subject, [seam], start, radius, params)
        assert float(shift.norm(dim=-1).max()) <= radius * 1.0001
        with (
            evaluating(model),
            intervene(model, -1, lambda hidden: hidden + shift),
        ):
            return int(target_logits(model, [seam], no_vectors(model))[0].argmax())

    assert told(0.99 * margin) == 6
    assert told(1.01 * margin) == 7


def test_only_other_facts_are_tested_and_the_grid_is_reported(world, models):
    params = latentpert.Params(grid=(0.25, 0.5), halvings=0, steps=2)
    leak = latentpert.mount(models.hushed_last, world.forget, world.scene(), params)
    assert len(leak.per_row) == len(world.forget) - 6
    assert leak.parts["leak@0.25"] == leak.parts["attacked"]
    assert leak.parts["norm"] > 0
    assert fmean(leak.per_row.values()) >= leak.parts["attacked"]


def test_an_opening_with_an_answer_is_refused(world, models):
    params = latentpert.Params(openings=f"It is {world.forget[0].value}")
    with pytest.raises(ExpungeError) as caught:
        latentpert.mount(models.hushed, world.forget, world.scene(), params)
    assert caught.value.code == "E-USE-003"
