"""Gradient ascent: closed forms and a slow second loss."""

import pytest
import torch
from conftest_methods import assert_same, flat, slow_nll

from expunge.testing import objective


def test_t3_has_the_value_of_the_card(t3) -> None:
    assert objective("ga", t3.model, {"forget": t3.view}).loss == pytest.approx(-0.464952, abs=1e-5)


def test_the_gradient_is_that_of_the_softmax_and_nothing_elsewhere(t3) -> None:
    objective("ga", t3.model, {"forget": t3.view})
    logits = t3.model.logits.detach()[0, :3]
    onehot = torch.nn.functional.one_hot(torch.tensor([0, 1, 3]), 4)
    torch.testing.assert_close(t3.model.gradient[0, :3], -(logits.softmax(-1) - onehot) / 3)
    assert not t3.model.gradient[0, 3].any()


def test_it_is_the_mean_over_tokens_not_over_rows(random_table, random_view) -> None:
    model, twin, view = random_table(1), random_table(1), random_view(2)
    found = objective("ga", model, {"forget": view})
    slow = -flat(slow_nll(twin, view)).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def test_a_retain_term_can_be_asked_for(t3) -> None:
    views = {"forget": t3.view, "retain": t3.view}
    assert set(objective("ga", t3.model, views).terms) == {"forget"}
    assert objective("ga", t3.model, views, retain_term="nll").loss == pytest.approx(0.0, abs=1e-9)
