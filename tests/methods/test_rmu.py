"""RMU: the card's closed form, where it pushes, what moves, and what a short vector forgets."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest_methods import assert_same
from hidden_views import Held, held_view, random_states
from safetensors import safe_open
from tiny_facts import accuracy, facts, knowing, unlearned

from expunge.core.events import listening
from expunge.core.registry import methods
from expunge.engine import steering
from expunge.engine.steering import SEED, TOPICS, direction, distance
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.methods import rmu
from expunge.testing import objective, tiny_model

GATE = {"layer": 2, "steering": 6.5, "retain_weight": 10.0, "max_steps": 200, "lr": 4e-3}


@pytest.fixture
def along(monkeypatch) -> None:
    """The control vector points along (0.6, 0.8)."""
    monkeypatch.setattr(steering, "direction", lambda *_: torch.tensor([0.6, 0.8]))


def term(now: Held, tensors=None, state=None, **params) -> torch.Tensor:
    step = Step({"forget": held_view(now, tensors=tensors)}, state=state)
    chosen = methods.params("rmu", {"layer": 0, **params})
    return rmu.forget(step, chosen).value


def test_the_card_s_closed_form(along) -> None:
    now = Held({0: torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])})
    loss = term(now, steering=2.0, include_bos=True)
    loss.backward()
    assert loss.item() == pytest.approx(1.10, abs=1e-6)
    assert now.states[0].grad[0, 0].tolist() == pytest.approx([-0.10, -0.80], abs=1e-6)


def test_without_a_vector_it_is_the_mean_square_of_the_activations(along) -> None:
    now = Held({0: torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])})
    assert term(now, steering=0.0, include_bos=True).item() == pytest.approx(30 / 4)


@pytest.mark.parametrize(("where", "bos"), product(("all", "answer"), (True, False)))
def test_it_equals_a_slow_sum_over_tokens(random_view, where: str, bos: bool) -> None:
    """Left and right padding, several spans, rows of two topics."""
    batch, state = random_view(3), {SEED: 5, TOPICS: ["a", "b", "a", "b", "b"]}
    now, twin = Held(random_states(1, [0])), random_states(1, [0])[0].requires_grad_()
    loss = term(now, batch, state, steering=2.5, positions=where, include_bos=bos)
    loss.backward()
    found = []
    for row, topic in enumerate("ababb"):
        real = [at for at in range(9) if batch["attention_mask"][row, at]]
        for at in real if bos else real[1:]:
            predicts = at < 8 and batch["labels"][row, at + 1] != -100
            if where == "all" or predicts:
                aim = 2.5 * direction(5, topic, 6)
                found += [(twin[row, at, channel] - aim[channel]) ** 2 for channel in range(6)]
    slow = torch.stack(found).sum() / len(found)
    slow.backward()
    assert_same((loss.item(), now.states[0].grad), (slow.detach(), twin.grad))


def test_padding_and_the_first_position_are_not_pushed(random_view) -> None:
    batch, now = random_view(4), Held(random_states(2, [0]))
    term(now, batch).backward()
    pushed = now.states[0].grad.abs().sum(-1) > 0
    real = batch["attention_mask"].bool()
    assert torch.equal(pushed, real & (real.cumsum(1) > 1))


def test_each_topic_has_one_vector_of_unit_length_and_no_negative_component() -> None:
    first, again, other = (direction(7, topic, 512) for topic in ("bio", "bio", "cyber"))
    assert torch.equal(first, again)
    assert float(first.norm()) == pytest.approx(1.0, abs=1e-6)
    assert float(first.min()) >= 0
    # The mean of a uniform number over its root mean square; of |N(0, 1)| it would be 0.798.
    assert float(first.mean() * 512**0.5) == pytest.approx(0.866, abs=0.03)
    assert float(first @ other) < 0.9
    assert not torch.equal(direction(8, "bio", 512), first)


def test_squares_are_taken_in_float32() -> None:
    """bfloat16 keeps three digits; 1200 times what it drops is not small."""
    draw = torch.Generator().manual_seed(0)
    before = torch.randn(2, 8, 64, generator=draw).bfloat16()
    now = (before.float() * 1.01).bfloat16()
    everywhere = torch.ones(2, 8, dtype=torch.bool)
    exact = ((now.double() - before.double()) ** 2).mean()
    assert float(distance(now, before, everywhere).value) == pytest.approx(float(exact), rel=1e-5)


def test_the_retain_term_compares_the_steered_block_or_is_the_one_asked_for() -> None:
    model, anchor = (tiny_model("llama", vocab=64, layers=3, seed=seed) for seed in (0, 1))
    ids = torch.arange(12).reshape(2, 6)
    view = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    views = {"forget": view, "retain": view}
    kept = {
        name: objective("rmu", model, views, anchor, layer=2, **params).terms.get("retain")
        for name, params in {
            "own": {}, "low": {"mse_layer": 0}, "nll": {"retain_term": "nll"},
            "kl": {"retain_term": "kl"}, "none": {"retain_term": "none"},
        }.items()
    }  # fmt: skip
    with torch.no_grad():
        states = [
            m(input_ids=ids, output_hidden_states=True).hidden_states for m in (model, anchor)
        ]
    assert kept["low"] == pytest.approx(float(((states[0][1] - states[1][1]) ** 2).mean()))
    assert kept["nll"] == pytest.approx(objective("grad-diff", model, views).terms["retain"])
    assert kept["none"] is None
    assert len({round(value, 6) for value in kept.values() if value is not None}) == 4


def test_no_block_above_the_steered_one_runs() -> None:
    model, ran = tiny_model("llama", vocab=64, layers=4), []
    for place, block in enumerate(model.model.layers):
        block.register_forward_hook(lambda *_, place=place: ran.append(place))
    ids = torch.arange(12).reshape(2, 6)
    view = {"input_ids": ids, "labels": ids}
    objective("rmu", model, {"forget": view, "retain": view}, model, layer=1)
    assert set(ran) == {0, 1}


def test_it_says_when_the_vector_is_too_short_and_keeps_plain_values(tmp_path: Path) -> None:
    said = []
    for length in (100.0, 0.5):
        subject, (forgotten, kept) = knowing(), facts()
        task = Task(
            model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
            roles={"forget": forgotten, "retain": kept},
        )  # fmt: skip
        with listening(lambda event: said.append(event.text)):
            rmu.prepare(task, methods.params("rmu", {"layer": 2, "steering": length}))
        assert json.loads(json.dumps(task.state)) == task.state
    assert len(said) == 1
    assert "arm" in said[0]


def test_only_the_named_matrices_change(tmp_path: Path) -> None:
    before = dict(knowing().model.named_parameters())
    after = dict(unlearned("rmu", tmp_path, layer=2, max_steps=3).model.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{at}.mlp.down_proj.weight" for at in (0, 1, 2)}


def test_an_adapter_sits_on_the_named_matrices_only(tmp_path: Path) -> None:
    unlearned("rmu", tmp_path, "lora", layer=3, max_steps=3)
    with safe_open(next((tmp_path / "out").rglob("adapter_model.safetensors")), "pt") as file:
        names = list(file.keys())
        adapted = {name.split("layers.")[1].split(".lora_")[0] for name in names}
        moved = [name for name in names if "lora_B" in name and file.get_tensor(name).any()]
    assert adapted == {f"{at}.mlp.down_proj" for at in (1, 2, 3)}
    assert len(moved) == 3


def test_it_forgets_and_keeps(tmp_path: Path) -> None:
    assert accuracy(knowing()) == (1.0, 1.0)
    forgotten, kept = accuracy(unlearned("rmu", tmp_path, **GATE))
    assert forgotten <= 0.3
    assert kept >= 0.95


def test_a_vector_shorter_than_the_activations_forgets_nothing(tmp_path: Path) -> None:
    """The silent failure: scale 0.3, alpha 100."""
    short = {**GATE, "steering": 1.5, "retain_weight": 100.0, "max_steps": 100}
    assert min(accuracy(unlearned("rmu", tmp_path, **short))) >= 0.95
