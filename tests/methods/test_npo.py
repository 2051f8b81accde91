"""Negative preference optimisation: closed forms, limits, traps, and a slow second loss."""

import math

import pytest
import torch
from conftest_methods import Z0, Fixed, Z, assert_same, slow_nll, three

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


NLL, NLL0 = [0.4401897, 0.2109976, 0.7436684], [0.1851825, 0.0828864, 0.340753]


def test_the_token_form_of_t3_is_the_formula_on_every_token(t3) -> None:
    found = objective("npo", t3.model, {"forget": t3.view}, t3.anchor, beta=4.0, form="token")
    losses = [
        2 / 4 * math.log1p(math.exp(-4 * (now - then))) for now, then in zip(NLL, NLL0, strict=True)
    ]
    assert found.loss == pytest.approx(sum(losses) / 3, abs=1e-5)


@pytest.mark.parametrize("power", [0.0, 1.5])
def test_the_weighted_form_has_the_gradient_of_the_published_weights(t3, power: float) -> None:
    options = {"beta": 4.0, "form": "weighted-token", "power": power}
    objective("npo", t3.model, {"forget": t3.view}, t3.anchor, **options)
    logits = torch.tensor(Z, dtype=torch.float64, requires_grad=True)
    nll = -logits.log_softmax(-1)[range(3), [0, 1, 3]]
    p, p0 = (-nll).exp().detach(), (-torch.tensor(NLL0, dtype=torch.float64)).exp()
    weights = 2 * p ** (4 + power) / (p**4 + p0**4)
    (-(weights * nll)).mean().backward()
    torch.testing.assert_close(t3.model.gradient[0, :3], logits.grad, rtol=1e-5, atol=1e-6)


def test_without_power_the_weighted_form_is_the_token_form(t3) -> None:
    views = {"forget": t3.view}
    plain = objective("npo", t3.model, views, t3.anchor, form="token")
    weighted = objective("npo", t3.model, views, t3.anchor, form="weighted-token", power=0.0)
    assert weighted.loss == pytest.approx(plain.loss, rel=1e-12)


def test_token_forms_tend_to_their_ascent_as_beta_vanishes(t3) -> None:
    objective("npo", t3.model, {"forget": t3.view}, t3.anchor, beta=1e-6, form="token")
    ascent = three(Z)
    objective("ga", ascent, {"forget": t3.view})
    torch.testing.assert_close(t3.model.gradient, ascent.gradient, rtol=1e-5, atol=1e-8)
    weighted, wga = three(Z), three(Z)
    options = {"beta": 1e-6, "form": "weighted-token", "power": 1.5}
    objective("npo", weighted, {"forget": t3.view}, t3.anchor, **options)
    objective("wga", wga, {"forget": t3.view}, beta=1.5)
    torch.testing.assert_close(weighted.gradient, wga.gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("form", ["token", "weighted-token"])
def test_token_forms_equal_a_slow_sum_over_tokens(random_table, random_view, form: str) -> None:
    model, anchor, view = random_table(1), random_table(2), random_view(3)
    options = {"beta": 0.7, "form": form, "power": 1.5}
    found = objective("npo", model, {"forget": view}, anchor, **options)
    twin, frozen = random_table(1), random_table(2)
    losses = []
    for now, then in zip(slow_nll(twin, view), slow_nll(frozen, view), strict=True):
        for token, token0 in zip(now, then, strict=True):
            loss = -2 / 0.7 * torch.log(torch.sigmoid(0.7 * (token - token0.detach())))
            weight = torch.exp(-1.5 * token.detach()) if form == "weighted-token" else 1.0
            losses.append(weight * loss)
    slow = torch.stack(losses).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))
    sequence = objective("npo", random_table(1), {"forget": view}, anchor, beta=0.7)
    assert found.loss != pytest.approx(sequence.loss, rel=1e-2)
