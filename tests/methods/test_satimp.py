"""SatImp: closed forms, both ends of the weight, and a slow second loss."""

import pytest
import torch
from conftest_methods import Fixed, assert_same, flat, slow_nll

from expunge.testing import objective


def test_t3_has_the_value_of_the_card(t3) -> None:
    found = objective("satimp", t3.model, {"forget": t3.view})
    assert found.loss == pytest.approx(-0.013599, abs=1e-5)


def test_it_equals_a_slow_sum_with_the_weights_held_still(random_table, random_view) -> None:
    model, twin, view = random_table(1), random_table(1), random_view(2)
    found = objective("satimp", model, {"forget": view}, beta1=2.0, beta2=0.5)
    tokens = flat(slow_nll(twin, view))
    p = (-tokens.detach()).exp()
    slow = -(p**2 * (1 - p) ** 0.5 * tokens).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def test_what_is_known_by_heart_still_has_a_weight_above_zero() -> None:
    """In bfloat16, the precision of these logits, 1 - p would round to 0."""
    logits = torch.zeros(1, 2, 4)
    logits[0, 0, 1] = 8.0
    ids = torch.tensor([[0, 1]])
    view = {"input_ids": ids, "labels": torch.tensor([[-100, 1]])}
    model = Fixed(logits)
    model.logits = logits.bfloat16().requires_grad_()
    assert model.logits[0, 0].softmax(-1)[1] == 1
    objective("satimp", model, {"forget": view})
    assert model.gradient[0, 0, 0] != 0


def test_forget_and_retain_stand_ten_to_one(t3) -> None:
    found = objective("satimp", t3.model, {"forget": t3.view, "retain": t3.view})
    assert found.loss == pytest.approx(-0.013599 + 0.1 * 0.464952, abs=1e-5)
