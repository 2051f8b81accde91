"""KL minimisation: direction, scope, and zero at the anchor."""

import pytest
import torch
from conftest_methods import Z0, assert_same, flat, slow_nll, three

from expunge.testing import objective


def test_t3_has_the_values_of_the_card(t3) -> None:
    views = {"forget": t3.view, "retain": t3.view}
    found = objective("kl-min", t3.model, views, t3.anchor, kl_scope="answer")
    assert found.terms["retain"] == pytest.approx(0.082892, abs=1e-5)
    assert found.terms["forget"] == pytest.approx(-0.464952, abs=1e-5)


def test_at_the_anchor_the_divergence_and_its_gradient_vanish(t3) -> None:
    views = {"forget": t3.view, "retain": t3.view}
    model = three(Z0)
    found = objective("kl-min", model, views, t3.anchor, forget_weight=0.0)
    assert found.loss == pytest.approx(0.0, abs=1e-12)
    assert model.gradient.abs().max() < 1e-9


@pytest.mark.parametrize("scope", ["all_nonpad", "legacy_all", "answer"])
def test_every_scope_equals_a_slow_sum_over_its_positions(scope, random_table, random_view) -> None:
    model, anchor, view = random_table(1), random_table(2), random_view(3)
    views = {"forget": view, "retain": view}
    found = objective("kl-min", model, views, anchor, kl_scope=scope, forget_weight=0.05)
    twin, frozen = random_table(1), random_table(2)
    parts = []
    for row, ids in enumerate(view["input_ids"]):
        for at, token in enumerate(ids):
            used = {
                "answer": at + 1 < len(ids)
                and view["labels"][row, min(at + 1, len(ids) - 1)] != -100,
                "all_nonpad": bool(view["attention_mask"][row, at]),
                "legacy_all": True,
            }[scope]
            if used:
                p0 = frozen.table[token].detach().softmax(0)
                log_p = twin.table[token].log_softmax(0)
                parts.append((p0 * (p0.log() - log_p)).sum())
    slow = torch.stack(parts).mean() - 0.05 * flat(slow_nll(twin, view)).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))
