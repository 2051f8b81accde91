"""Rerouting: the card's closed forms, the schedule, and that it forgets and then repairs."""

from pathlib import Path

import pytest
import torch
from conftest_methods import assert_same
from hidden_views import Held, held_view, random_states
from tiny_facts import accuracy, knowing, unlearned

from expunge.core.registry import methods
from expunge.engine.step import Step
from expunge.lm.hooks import EMBEDDING
from expunge.methods import rr


def step_of(role: str, now: Held, before: Held, tensors=None, progress: float = 0.0) -> Step:
    return Step({role: held_view(now, before, tensors)}, progress=progress)


def one(vector: tuple[float, float]) -> Held:
    return Held({0: torch.tensor([[vector]])})


FIRST = methods.params("rr", {"target_layers": (0,), "include_bos": True})


@pytest.mark.parametrize(
    ("before", "value", "gradient"),
    [((4.0, 3.0), 0.96, (0.0448, -0.0336)), ((-4.0, -3.0), 0.0, (0.0, 0.0))],
)
def test_the_card_s_closed_forms(before, value: float, gradient) -> None:
    """Past a right angle nothing is left to push."""
    now = one((3.0, 4.0))
    loss = rr.forget(step_of("forget", now, one(before)), FIRST).value
    loss.backward()
    assert loss.item() == pytest.approx(value, abs=1e-6)
    assert now.states[0].grad[0, 0].tolist() == pytest.approx(gradient, abs=1e-6)


def test_the_retain_norm_is_not_squared_and_covers_all_hidden_states() -> None:
    zeros = {layer: torch.zeros(1, 1, 2) for layer in (EMBEDDING, 0, 1)}
    moved = {**zeros, 1: torch.tensor([[[3.0, 4.0]]])}
    loss = rr.drift(step_of("retain", Held(moved), Held(zeros)).retain).value
    assert loss.item() == pytest.approx(5 / 3)


def test_where_nothing_has_moved_the_gradient_is_0_and_finite() -> None:
    """The square root has no slope at 0; the run starts there."""
    states = random_states(1, [EMBEDDING, 0, 1])
    now = Held(states)
    rr.drift(step_of("retain", now, Held(states)).retain).value.backward()
    assert all(state.grad is not None and not state.grad.any() for state in now.states.values())


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_forgetting_fades_and_keeping_grows(progress: float) -> None:
    states = [Held(random_states(seed, [EMBEDDING, 0, 1])) for seed in (1, 2)]
    terms = {}
    for at in (0.5, progress):
        forgets, keeps = (step_of(role, *states, progress=at) for role in ("forget", "retain"))
        terms[at] = rr.forget(forgets, FIRST).value.item(), rr.retain(keeps, FIRST).value.item()
    assert terms[progress][0] == pytest.approx(2 * (1 - progress) * terms[0.5][0])
    assert terms[progress][1] == pytest.approx(2 * progress * terms[0.5][1])


def test_both_terms_equal_slow_sums_over_tokens(random_view) -> None:
    batch, layers = random_view(3), [EMBEDDING, 0, 1, 2]
    now, before = (Held(random_states(seed, layers)) for seed in (1, 2))
    twin = {layer: state.detach().clone().requires_grad_() for layer, state in now.states.items()}
    params = methods.params("rr", {"target_layers": (0, 2)})
    pushed = rr.forget(step_of("forget", now, before, batch, 0.25), params).value
    kept = rr.retain(step_of("retain", now, before, batch, 0.25), params).value
    (10 * pushed + 10 * kept).backward()
    cosines, moved, tokens = torch.zeros(()), torch.zeros(()), 0
    for row in range(5):
        real = [at for at in range(9) if batch["attention_mask"][row, at]]
        tokens += len(real)
        for at in real:
            for layer in layers:
                h, h0 = twin[layer][row, at], before.states[layer].detach()[row, at]
                moved = moved + ((h - h0) ** 2).sum().sqrt()
                if at != real[0] and layer in (0, 2):
                    angle = (h @ h0) / ((h @ h).sqrt() * (h0 @ h0).sqrt())
                    cosines = cosines + torch.clamp(angle, min=0)
    slow = 10 * 0.75 * cosines / (tokens - 5) + 10 * 0.25 * moved / (4 * tokens)
    slow.backward()
    for layer in layers:
        fast = (10 * (pushed + kept)).item(), now.states[layer].grad
        assert_same(fast, (slow.detach(), twin[layer].grad))


def test_cosines_are_taken_in_float32() -> None:
    draw = torch.Generator().manual_seed(0)
    before = torch.randn(1, 4, 64, generator=draw).bfloat16()
    now = (before.float() + 0.05 * torch.randn(1, 4, 64, generator=draw)).bfloat16()
    exact = torch.cosine_similarity(now.double(), before.double(), dim=-1).mean()
    loss = rr.forget(step_of("forget", Held({0: now}), Held({0: before})), FIRST).value
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), abs=1e-6)


def test_the_targets_keep_their_share_of_the_depth() -> None:
    default = methods.params("rr", {})
    assert list(rr.targets_of(default, 32)) == [10, 20]
    assert list(rr.targets_of(default, 4)) == [1, 2]
    assert list(rr.targets_of(default, 1)) == [0]


def test_a_shared_retain_term_follows_the_same_schedule() -> None:
    states = random_states(1, [EMBEDDING, 0, 1])
    step = step_of("retain", Held(states), Held(random_states(2, states)), progress=0.25)
    term = rr.retain(step, methods.params("rr", {"retain_term": "mse", "mse_layer": 1}))
    squares = (step.retain.hidden(1) - step.retain.anchor.hidden(1)) ** 2
    assert term.value.item() == pytest.approx(0.25 * squares.mean().item())
    assert rr.retain(step, methods.params("rr", {"retain_term": "none"})) is None


def test_only_the_blocks_up_to_the_highest_target_change(tmp_path: Path) -> None:
    before = dict(knowing().model.named_parameters())
    made = unlearned("rr", tmp_path, target_layers=(1,), max_steps=3)
    after = dict(made.model.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {n for n in before if n.startswith(("model.layers.0.", "model.layers.1."))}


def test_it_forgets_and_keeps(tmp_path: Path) -> None:
    params = {"target_layers": (2,), "max_steps": 300, "lr": 2e-3}
    forgotten, kept = accuracy(unlearned("rr", tmp_path, **params))
    assert forgotten <= 0.1
    assert kept >= 0.95
