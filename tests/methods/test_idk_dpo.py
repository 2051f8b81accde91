"""DPO with refusals: closed forms, the draw against itself, and a slow second loss."""

import math

import pytest
import torch
from conftest_methods import assert_same, slow_nll

from expunge.testing import objective


def winning(view: dict) -> dict:
    """T3's winning targets on the same logits."""
    return {**view, "labels": torch.tensor([[-100, 1, 2, 0]])}


def test_t3_has_the_values_of_the_card(t3) -> None:
    views = {"forget": t3.view, "refusal": winning(t3.view)}
    found = objective("idk-dpo", t3.model, views, t3.anchor, beta=0.1)
    assert found.loss == pytest.approx(11.087105, abs=1e-5)
    assert found.loss * 0.1 / 2 == pytest.approx(0.554355, abs=1e-5)


def test_an_answer_against_itself_gives_no_gradient(t3) -> None:
    views = {"forget": t3.view, "refusal": t3.view}
    found = objective("idk-dpo", t3.model, views, t3.anchor, beta=0.1)
    assert found.loss == pytest.approx(2 / 0.1 * math.log(2))
    assert t3.model.gradient.abs().max() < 1e-12


def test_it_equals_a_slow_sum_over_pairs(random_table, random_view) -> None:
    model, anchor = random_table(1), random_table(2)
    views = {"forget": random_view(3), "refusal": random_view(4)}
    found = objective("idk-dpo", model, views, anchor, beta=0.5)
    twin, frozen = random_table(1), random_table(2)
    sums = {
        name: (
            [sum(row) for row in slow_nll(twin, view)],
            [sum(row).detach() for row in slow_nll(frozen, view)],
        )
        for name, view in views.items()
    }
    margins = [
        (lost - lost0) - (won - won0)
        for lost, lost0, won, won0 in zip(*sums["forget"], *sums["refusal"], strict=True)
    ]
    slow = torch.stack([-2 / 0.5 * torch.log(torch.sigmoid(0.5 * m)) for m in margins]).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))
