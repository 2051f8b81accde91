"""Negative preference optimisation: closed forms, limits, traps, and a slow second loss."""

import math

import pytest
import torch
from conftest_methods import Z0, Fixed, assert_same, slow_nll, three

from expunge.testing import objective


def test_t3_has_the_value_of_the_card(t3) -> None:
    found = objective("npo", t3.model, {"forget": t3.view}, t3.anchor, beta=0.1)
    assert found.loss == pytest.approx(13.092352, abs=1e-5)
    assert found.loss != pytest.approx(14.664420, abs=1e-2)  # the reversed sign


def test_the_weight_of_the_ascent_is_twice_the_sigmoid(t3) -> None:
    objective("npo", t3.model, {"forget": t3.view}, t3.anchor, beta=0.1)
    ascent = three([[2.0, 1, 0, -1], [0, 3, 1, 0], [1, 1, 1, 2]])
    objective("ga", ascent, {"forget": t3.view})
    ratio = t3.model.gradient[0, :3] / (3 * ascent.gradient[0, :3])
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.960719), rtol=1e-5, atol=0)


def test_at_the_anchor_it_is_ascent_on_row_sums(t3) -> None:
    model = three(Z0)
    found = objective("npo", model, {"forget": t3.view}, t3.anchor, beta=0.1)
    assert found.loss == pytest.approx(2 / 0.1 * math.log(2), abs=1e-9)
    sums = three(Z0)
    objective("ga", sums, {"forget": t3.view})
    torch.testing.assert_close(model.gradient, 3 * sums.gradient)


def test_it_tends_to_gradient_ascent_as_beta_vanishes(t3) -> None:
    model, ascent = t3.model, Fixed(t3.model.logits.detach())
    objective("npo", model, {"forget": t3.view}, t3.anchor, beta=1e-6)
    objective("ga", ascent, {"forget": t3.view})
    torch.testing.assert_close(model.gradient, 3 * ascent.gradient, rtol=1e-5, atol=1e-8)


def test_sums_are_formed_before_the_sigmoid(random_table, random_view) -> None:
    model, anchor, view = random_table(1), random_table(2), random_view(3)
    found = objective("npo", model, {"forget": view}, anchor, beta=0.7)
    twin, frozen = random_table(1), random_table(2)
    ratios = [
        -sum(now) + sum(then).detach()
        for now, then in zip(slow_nll(twin, view), slow_nll(frozen, view), strict=True)
    ]
    slow = -2 / 0.7 * torch.stack([torch.log(torch.sigmoid(-0.7 * r)) for r in ratios]).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))
    assert anchor.table.grad is None


def test_the_retain_term_is_added_with_its_own_mean(t3) -> None:
    views = {"forget": t3.view, "retain": t3.view}
    found = objective("npo", t3.model, views, t3.anchor, beta=0.1, retain_weight=2.0)
    assert found.terms["retain"] == pytest.approx(0.464952, abs=1e-5)
    assert found.loss == pytest.approx(13.092352 + 2 * 0.464952, abs=1e-5)


def test_the_kl_retain_term_has_the_cards_direction(t3) -> None:
    views = {"forget": t3.view, "retain": t3.view}
    options = {"retain_term": "kl", "kl_scope": "answer"}
    found = objective("npo", t3.model, views, t3.anchor, **options)
    assert found.terms["retain"] == pytest.approx(0.082892, abs=1e-5)
    at_anchor = objective("npo", three(Z0), views, t3.anchor, **options)
    assert at_anchor.terms["retain"] == pytest.approx(0.0, abs=1e-9)
