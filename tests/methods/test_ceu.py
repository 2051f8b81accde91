"""CE-U: closed forms, its gradient, the skipped tokens, and a slow second loss."""

import pytest
import torch
from conftest_methods import assert_same

from expunge.testing import objective


@pytest.mark.parametrize(("skip", "value"), [(0, 2.081176), (1, 2.189275)])
def test_t3_has_the_values_of_the_card(t3, skip: int, value: float) -> None:
    found = objective("ceu", t3.model, {"forget": t3.view}, skip=skip)
    assert found.loss == pytest.approx(value, abs=1e-5)


def test_the_gradient_is_the_cards_and_sums_to_zero(t3) -> None:
    objective("ceu", t3.model, {"forget": t3.view}, skip=0)
    p = t3.model.logits.detach()[0, :3].softmax(-1)
    targets = torch.tensor([[0], [1], [3]])
    own = p.gather(1, targets)
    expected = (-p * own / (1 - own)).scatter(1, targets, own) / 3
    torch.testing.assert_close(t3.model.gradient[0, :3], expected)
    assert t3.model.gradient.sum(-1).abs().max() < 1e-12


def test_it_equals_a_slow_sum_over_the_tokens_that_are_used(random_table, random_view) -> None:
    model, twin, view = random_table(1), random_table(1), random_view(2)
    found = objective("ceu", model, {"forget": view}, skip=2)
    parts = []
    for ids, labels in zip(view["input_ids"], view["labels"], strict=True):
        seen = 0
        for at in range(1, len(ids)):
            if labels[at] == -100:
                continue
            seen += 1
            if seen > 2:
                scores = twin.table[ids[at - 1]]
                others = [k for k in range(11) if k != int(labels[at])]
                q = scores.detach()[others].softmax(0)
                parts.append(-(q * scores.log_softmax(0)[others]).sum())
    slow = torch.stack(parts).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))
