"""SimNPO: closed forms, the weight of a row, and a slow second loss."""

import pytest
import torch
from conftest_methods import assert_same, slow_nll

from expunge.testing import objective


@pytest.mark.parametrize(
    ("beta", "value", "weight"), [(2.5, 0.217694, 0.158823), (4.5, 0.051717, 0.073233)]
)
def test_t3_has_the_values_of_the_card(t3, beta: float, value: float, weight: float) -> None:
    found = objective("simnpo", t3.model, {"forget": t3.view}, beta=beta, forget_weight=1.0)
    assert found.loss == pytest.approx(value, abs=1e-5)
    from conftest_methods import Z, three

    ascent = three(Z)
    objective("ga", ascent, {"forget": t3.view})
    # the gradient of GA is that of -S / 3, and dL/dS = -weight
    torch.testing.assert_close(
        t3.model.gradient, weight * 3 * ascent.gradient, rtol=1e-4, atol=1e-7
    )


def test_means_are_formed_row_by_row(random_table, random_view) -> None:
    model, twin, view = random_table(1), random_table(1), random_view(2)
    found = objective("simnpo", model, {"forget": view}, beta=2.5, delta=0.3, forget_weight=1.0)
    rows = [torch.stack(row).mean() for row in slow_nll(twin, view)]
    slow = torch.stack([-2 / 2.5 * torch.log(torch.sigmoid(2.5 * (n - 0.3))) for n in rows]).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def test_the_forget_weight_is_the_papers(t3) -> None:
    found = objective("simnpo", t3.model, {"forget": t3.view})
    assert found.loss == pytest.approx(0.125 * 0.051717, abs=1e-6)
