"""Logit lens, head projection with a budget."""

import pytest
import torch

from expunge.attacks import lens_topk
from expunge.lm.hooks import intervene
from expunge.testing.attacks import mean_leak


def test_it_finds_in_the_middle_what_the_last_block_replaces(world, models):
    scene = world.scene()
    assert mean_leak("direct", models.misled, world.forget, scene) <= 0.05
    assert mean_leak("lens-topk", models.misled, world.forget, scene) >= 0.9
    assert mean_leak("lens-topk", models.misled, world.forget, scene, k=1) >= 0.9
    assert mean_leak("lens-topk", models.misled, world.forget, scene, k=1, layers=(-1,)) <= 0.15


def test_it_sees_through_a_refusal_and_finds_little_that_was_never_trained(world, models):
    assert mean_leak("lens-topk", models.hushed, world.forget, world.scene()) >= 0.9
    for model in (models.original, models.hushed, models.misled):
        assert mean_leak("lens-topk", model, world.holdout, world.scene()) <= 0.35
        assert mean_leak("lens-topk", model, world.holdout, world.scene(), k=1) <= 0.15


def test_a_last_block_that_takes_the_answer_away_hides_nothing(world, models):
    row = next(row for row in world.forget if row.meta["attribute"] == "pet")
    token = world.tokenizer(f" {row.value}", add_special_tokens=False)["input_ids"][0]
    answer = models.original.model.get_output_embeddings().weight[token].detach()
    read = lens_topk.Params(k=1, bottom=False)
    with intervene(models.original.model, -1, lambda h: h - 9 * answer / answer.norm()):
        assert mean_leak("direct", models.original.copy(), [row], world.scene()) == 0.0
        found = lens_topk.mount(models.original, [row], world.scene(), read)
        at_the_end = lens_topk.mount(
            models.original, [row], world.scene(), lens_topk.Params(k=1, layers=(-1,))
        )
    assert found.per_row == {row.id: 1.0}
    assert at_the_end.parts["top"] == 0.0
    assert at_the_end.parts["bottom"] == 1.0


def test_negated_logits_are_found_at_the_bottom_only(world, models):
    twin = models.original.copy()
    with torch.no_grad():
        twin.model.get_output_embeddings().weight.neg_()
    leak = lens_topk.mount(twin, world.forget, world.scene(), lens_topk.Params(k=1))
    assert leak.parts["top"] == 0.0
    assert leak.parts["bottom"] == leak.parts["union"] == 1.0
    assert mean_leak("lens-topk", twin, world.forget, world.scene(), bottom=False) <= 0.05


@pytest.mark.parametrize(("bottom", "budget"), [(True, 12), (False, 6)])
def test_the_budget_is_k_from_each_end_of_each_block(world, models, bottom, budget):
    params = lens_topk.Params(k=3, layers=(0, -1), bottom=bottom)
    leak = lens_topk.mount(models.misled, world.forget, world.scene(), params)
    assert leak.parts["budget"] == budget
    assert leak.parts["chance"] == pytest.approx(budget / len(world.tokenizer))
    assert list(leak.layers) == [0, 2]
    assert max(leak.layers.values()) <= leak.parts["union"]
    assert ("bottom" in leak.parts) == bottom


def test_at_the_end_of_the_prompt_the_value_does_not_come_next(world, models):
    params = lens_topk.Params(k=1, at="prompt", layers=(-1,))
    leak = lens_topk.mount(models.original, world.forget, world.scene(), params)
    assert leak.parts["top"] == 0.0
