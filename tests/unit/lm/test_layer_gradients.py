"""Squared gradients by block: row by row, whole weights, nothing left behind."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from expunge.lm.arch import Slots
from expunge.lm.layer_gradients import squared_gradients
from expunge.lm.representations import spots
from expunge.lm.subject import Subject
from expunge.testing.micro import micro_world
from expunge.testing.tiny import tiny_model

WORLD = micro_world(people=2)
ROWS = WORLD.forget


def subject(family="llama"):
    model = tiny_model(family, vocab=len(WORLD.tokenizer), layers=2, positions=128)
    return Subject(model, WORLD.tokenizer)


def by_hand(model, spot, layer):
    model.zero_grad()
    logits = model(input_ids=torch.tensor([spot.item.ids])).logits[0, spot.at]
    target = torch.tensor([spot.item.ids[at + 1] for at in spot.at])
    functional.cross_entropy(logits, target).backward()
    gradients = [weight.grad.flatten() for weight in Slots(model).blocks[layer].parameters()]
    model.zero_grad(set_to_none=True)
    return float(torch.cat(gradients).square().mean())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_is_the_mean_over_rows_of_squares_and_not_the_square_of_the_mean(family):
    of = subject(family)
    places = spots(of, ROWS)
    for layer, found in enumerate(squared_gradients(of, places)):
        expected = np.mean([by_hand(of.model, spot, layer) for spot in places.values()])
        assert found == pytest.approx(expected, rel=1e-4)


def test_gradients_flags_and_mode_are_left_as_they_were():
    of = subject()
    of.model.requires_grad_(False)
    Slots(of.model).blocks[0].requires_grad_(True)
    of.model.train()
    before = [weight.requires_grad for weight in of.model.parameters()]
    assert squared_gradients(of, spots(of, ROWS)).all()
    assert [weight.requires_grad for weight in of.model.parameters()] == before
    assert all(weight.grad is None for weight in of.model.parameters())
    assert of.model.training


def test_an_active_adapter_counts_as_if_it_were_folded_in():
    of = subject()
    adapted = get_peft_model(of.model, LoraConfig(r=2, target_modules=["down_proj", "q_proj"]))
    draw = torch.Generator().manual_seed(0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data = 0.3 * torch.randn(weight.shape, generator=draw)
    active = Subject(adapted.eval(), WORLD.tokenizer)
    places = spots(active, ROWS)
    found = squared_gradients(active, places)
    folded = Subject(active.copy().model.merge_and_unload(), WORLD.tokenizer)
    np.testing.assert_allclose(found, squared_gradients(folded, places), rtol=1e-4)


def test_a_tied_embedding_belongs_to_no_block():
    of = subject("llama_tied")
    assert len(squared_gradients(of, spots(of, ROWS))) == 2
