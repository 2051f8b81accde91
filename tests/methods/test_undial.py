"""UNDIAL: closed forms, its minimum, and a slow second loss on supervised positions only."""

import pytest
import torch
from conftest_methods import Z0, Fixed, assert_same, three

from expunge.engine.forward import Inputs
from expunge.engine.sources import Frozen, Live
from expunge.engine.step import Step
from expunge.engine.view import View
from expunge.methods import undial
from expunge.testing import objective


@pytest.mark.parametrize(("beta", "value"), [(3.0, 1.656055), (10.0, 2.080609)])
def test_t3_has_the_values_of_the_card(t3, beta: float, value: float) -> None:
    found = objective("undial", t3.model, {"forget": t3.view}, t3.anchor, beta=beta)
    assert found.loss == pytest.approx(value, abs=1e-5)


def test_without_demotion_the_anchor_is_the_minimum(t3) -> None:
    model = three(Z0)
    objective("undial", model, {"forget": t3.view}, t3.anchor, beta=0.0)
    assert model.gradient.abs().max() < 1e-12


def test_the_gradient_is_the_distance_to_the_teacher(t3) -> None:
    objective("undial", t3.model, {"forget": t3.view}, t3.anchor, beta=3.0)
    teacher = t3.anchor.logits.detach()[0, :3].clone()
    teacher[range(3), [0, 1, 3]] -= 3.0
    expected = (t3.model.logits.detach()[0, :3].softmax(-1) - teacher.softmax(-1)) / 3
    torch.testing.assert_close(t3.model.gradient[0, :3], expected)
    assert not t3.model.gradient[0, 3].any()


def test_it_equals_a_slow_sum(random_table, random_view) -> None:
    model, anchor, view = random_table(1), random_table(2), random_view(3)
    found = objective("undial", model, {"forget": view}, anchor, beta=4.0)
    twin, frozen = random_table(1), random_table(2)
    parts = []
    for ids, labels in zip(view["input_ids"], view["labels"], strict=True):
        for at in range(1, len(ids)):
            if labels[at] != -100:
                z0 = frozen.table[ids[at - 1]].detach().clone()
                z0[labels[at]] -= 4.0
                parts.append(-(z0.softmax(0) * twin.table[ids[at - 1]].log_softmax(0)).sum())
    slow = torch.stack(parts).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def test_it_reports_what_is_left_above_the_floor(t3) -> None:
    step, teacher = _step(t3.view, t3.model, t3.anchor), t3.anchor.logits.detach()[0, :3].clone()
    teacher[range(3), [0, 1, 3]] -= 10.0
    loss = undial.forget(step, undial.Params(beta=10.0)).value
    floor = -(teacher.softmax(-1) * teacher.log_softmax(-1)).sum(-1).mean()
    excess = step.reported["forget_excess"]
    assert float(excess.value) == pytest.approx(float(loss - floor), rel=1e-9)
    assert 0 < float(excess.value) < float(loss)
    assert not excess.num.requires_grad


def test_at_the_teacher_nothing_is_left(t3) -> None:
    at_teacher = _step(t3.view, three(Z0), t3.anchor)
    undial.forget(at_teacher, undial.Params(beta=0.0))
    assert float(at_teacher.reported["forget_excess"].value) == pytest.approx(0.0, abs=1e-12)


def _step(tensors: dict, model: Fixed, anchor: Fixed) -> Step:
    ids = tensors["input_ids"]
    inputs = Inputs.from_labels(
        ids, tensors["attention_mask"], tensors["labels"], torch.arange(len(ids))
    )
    return Step({"forget": View(inputs, Live(model), lambda: Frozen(anchor))})
