"""Weighted gradient ascent: closed forms, the stopped gradient, and a slow second loss."""

import pytest
import torch
from conftest_methods import assert_same, flat, slow_nll

from expunge.testing import objective


@pytest.mark.parametrize(("beta", "value"), [(1.0, -0.269274), (2.0, -0.162974)])
def test_t3_has_the_values_of_the_card(t3, beta: float, value: float) -> None:
    found = objective("wga", t3.model, {"forget": t3.view}, beta=beta)
    assert found.loss == pytest.approx(value, abs=1e-5)


def test_the_gradient_is_ascent_times_the_weight(t3) -> None:
    objective("wga", t3.model, {"forget": t3.view}, beta=2.0)
    logits = t3.model.logits.detach()[0, :3]
    p, targets = logits.softmax(-1), torch.tensor([0, 1, 3])
    weight = p.gather(1, targets[:, None]) ** 2
    expected = -weight * (p - torch.nn.functional.one_hot(targets, 4)) / 3
    torch.testing.assert_close(t3.model.gradient[0, :3], expected)


def test_it_equals_a_slow_sum_with_the_weights_held_still(random_table, random_view) -> None:
    model, twin, view = random_table(1), random_table(1), random_view(2)
    found = objective("wga", model, {"forget": view}, beta=1.5)
    tokens = flat(slow_nll(twin, view))
    slow = -((-tokens.detach()).exp() ** 1.5 * tokens).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def test_without_an_exponent_it_is_gradient_ascent(t3) -> None:
    found = objective("wga", t3.model, {"forget": t3.view}, beta=0.0)
    assert found.loss == pytest.approx(-0.464952, abs=1e-5)
