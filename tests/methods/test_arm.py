"""Adaptive RMU: a target that grows with the activations, measured in either of two ways."""

import json
from pathlib import Path

import pytest
import torch
from conftest_methods import assert_same
from hidden_views import Held, held_view, random_states
from tiny_facts import accuracy, facts, knowing, unlearned

from expunge.core.registry import methods
from expunge.engine import steering
from expunge.engine.steering import SEED, TOPICS, direction
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.hooks import capture, evaluating
from expunge.methods import arm, rmu
from expunge.testing import objective, tiny_model


@pytest.fixture
def along(monkeypatch) -> None:
    """The control vector points along (0.6, 0.8)."""
    monkeypatch.setattr(steering, "direction", lambda *_: torch.tensor([0.6, 0.8]))


def term(now: Held, before: Held, tensors=None, state=None, **params) -> torch.Tensor:
    step = Step({"forget": held_view(now, before, tensors)}, state=state)
    return arm.forget(step, methods.params("arm", {"layer": 0, **params})).value


def held(values: list[list[list[float]]]) -> Held:
    return Held({0: torch.tensor(values)})


def test_the_card_s_closed_form(along) -> None:
    now = held([[[3.0, 4.0]]])
    loss = term(now, now, include_bos=True)
    assert loss.item() == pytest.approx(200.0)


def test_no_gradient_passes_the_norm() -> None:
    """Model and anchor are one object here, so a gradient that could pass would."""
    model, ids = tiny_model("llama", vocab=64), torch.arange(12).reshape(2, 6)
    views = {"forget": {"input_ids": ids, "labels": ids}}
    objective("arm", model, views, model, layer=0, include_bos=True)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[1]
    lengths = hidden.detach().norm(dim=-1).mean(1)[:, None, None]
    ((hidden - 5.0 * lengths * direction(0, "", 32)) ** 2).mean().backward()
    for name, parameter in model.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-5, atol=1e-7)


def test_at_scale_0_it_is_rmu_without_a_vector() -> None:
    now, before = (Held(random_states(seed, [0])) for seed in (1, 2))
    plain = rmu.forget(
        Step({"forget": held_view(now)}), methods.params("rmu", {"layer": 0, "steering": 0.0})
    )
    assert term(now, before, scale=0.0).item() == pytest.approx(plain.value.item())


def test_activations_ten_times_as_long_have_a_target_ten_times_as_long(along) -> None:
    """Both distances grow a hundredfold; those to rmu's fixed vector do not."""
    states = random_states(3, [0], width=2)[0]
    small, large = Held({0: states}), Held({0: 10 * states})
    assert term(large, large).item() == pytest.approx(100 * term(small, small).item(), rel=1e-5)
    fixed = [
        rmu.forget(
            Step({"forget": held_view(now)}), methods.params("rmu", {"layer": 0, "steering": 5.0})
        ).value.item()
        for now in (small, large)
    ]
    assert abs(fixed[1] / fixed[0] - 100) > 10


def test_it_equals_a_slow_sum_over_tokens(random_view) -> None:
    """Each row by its own length, on either padding, for rows of two topics."""
    batch, state = random_view(3), {SEED: 5, TOPICS: ["a", "b", "a", "b", "b"]}
    now = Held(random_states(1, [0]))
    twin = random_states(1, [0])[0].requires_grad_()
    frozen = random_states(2, [0])[0]
    loss = term(now, Held({0: frozen}), batch, state, scale=2.0)
    loss.backward()
    found = []
    for row, topic in enumerate("ababb"):
        real = [at for at in range(9) if batch["attention_mask"][row, at]][1:]
        length = sum(float((frozen[row, at] ** 2).sum()) ** 0.5 for at in real) / len(real)
        aim = 2.0 * length * direction(5, topic, 6)
        found += [(twin[row, at, c] - aim[c]) ** 2 for at in real for c in range(6)]
    slow = torch.stack(found).sum() / len(found)
    slow.backward()
    assert_same((loss.item(), now.states[0].grad), (slow.detach(), twin.grad))


def test_the_first_batch_of_a_topic_is_measured_on_the_original() -> None:
    subject, (forgotten, kept) = knowing(), facts()
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": forgotten, "retain": kept},
    )  # fmt: skip
    params = methods.params(
        "arm", {"layer": 2, "norm_source": "first_batch", "batch_size": len(forgotten)}
    )
    arm.prepare(task, params)
    with evaluating(subject.model), capture(subject.model, [2]) as seen:
        ids = [subject.encoder.encode(row.training).ids for row in forgotten]
        subject.model(input_ids=torch.tensor(ids))
    assert task.state[arm.NORMS][""] == pytest.approx(
        seen[2][:, 1:].norm(dim=-1).mean().item(), rel=1e-5
    )
    assert json.loads(json.dumps(task.state)) == task.state


def test_one_number_a_topic_takes_the_place_of_each_row_s_own(along) -> None:
    now, state = held([[[3.0, 4.0]], [[3.0, 4.0]]]), {arm.NORMS: {"a": 5.0, "b": 10.0}}
    for topic, value in (("a", 200.0), ("b", (27**2 + 36**2) / 2)):
        told = {**state, TOPICS: [topic, topic]}
        found = term(now, now, state=told, include_bos=True, norm_source="first_batch")
        assert found.item() == pytest.approx(value)


def test_it_forgets_and_keeps(tmp_path: Path) -> None:
    params = {"layer": 2, "max_steps": 200, "lr": 4e-3}
    forgotten, kept = accuracy(unlearned("arm", tmp_path, **params))
    assert forgotten <= 0.3
    assert kept >= 0.95
