"""Gradient difference: two terms with a denominator each."""

import pytest
import torch
from conftest_methods import assert_same, flat, slow_nll

from expunge.testing import objective


def test_equal_batches_and_weights_cancel_exactly(t3) -> None:
    found = objective("grad-diff", t3.model, {"forget": t3.view, "retain": t3.view})
    assert found.loss == 0.0
    assert not t3.model.gradient.any()


def test_each_term_is_normalised_by_itself(random_table, random_view) -> None:
    model, twin = random_table(1), random_table(1)
    forget, retain = random_view(2), random_view(3)
    retain = {name: tensor[:2] for name, tensor in retain.items()}
    found = objective(
        "grad-diff", model, {"forget": forget, "retain": retain}, forget_weight=0.5, retain_weight=3
    )
    slow = -0.5 * flat(slow_nll(twin, forget)).mean() + 3 * flat(slow_nll(twin, retain)).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))
    joint = -flat(slow_nll(twin, forget)).sum() + flat(slow_nll(twin, retain)).sum()
    assert found.loss != pytest.approx(float(joint) / 30, rel=1e-2)
    assert torch.isfinite(model.table.grad).all()
