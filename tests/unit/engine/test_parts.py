"""The parts of the engine: means, draws, masks, rates, stop levels."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.registry import methods
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.levels import StopAt
from expunge.engine.masks import AppliedMask
from expunge.engine.mean import mean_of
from expunge.engine.method import GradientMethod
from expunge.engine.rates import learning_rate, run_length, warmup_steps
from expunge.engine.slots.combine import Gradients, weighted_sum
from expunge.engine.slots.sample import OneToOne
from expunge.engine.sources import Frozen
from expunge.engine.task import Task
from expunge.testing.methods import taught_subject, world


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12), st.integers(1, 11))
def test_a_mean_is_the_same_however_it_is_cut(values: list[float], cut: int) -> None:
    whole = torch.tensor(values, dtype=torch.float64)
    at = min(cut, len(values) - 1)
    pooled = mean_of(whole[:at]) + mean_of(whole[at:])
    torch.testing.assert_close(pooled.value, whole.mean(), rtol=1e-12, atol=1e-12)


def test_a_weighted_mean_divides_by_the_weights() -> None:
    mean = mean_of(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0]))
    assert float(mean.value) == 2.0
    assert float((-2 * mean).value) == -4.0


def sampler(forget: int = 10, retain: int = 7, size: int = 4, seed: int = 0) -> OneToOne:
    return OneToOne(forget, {"retain": retain}, size, seed)


def test_an_epoch_passes_every_forget_row_once() -> None:
    drawn = [row for step in range(5) for row in sampler().draw(step).rows["forget"]]
    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:20]) == list(range(10))
    assert drawn[:10] != drawn[10:20]


def test_a_draw_depends_on_seed_and_step_alone() -> None:
    assert sampler().draw(3) == sampler().draw(3)
    assert sampler().draw(3) != sampler(seed=1).draw(3)
    assert sampler().draw(3).rows["retain"] != sampler().draw(4).rows["retain"]


def test_processes_share_the_draw_and_chunks_share_the_part() -> None:
    draw = sampler(size=7).draw(0)
    parts = [draw.share(rank, 2) for rank in range(2)]
    for role in ("forget", "retain"):
        together = sorted(row for part in parts for row in part.rows[role])
        assert together == sorted(draw.rows[role])
        chunked = [row for i in range(3) for row in draw.chunk(i, 3).rows[role]]
        assert chunked == list(draw.rows[role])
    assert len(parts[0].rows["forget"]) == 4
    assert len(parts[1].rows["forget"]) == 3


def test_retain_rows_fill_the_step_of_a_small_forget_set() -> None:
    draw = sampler(forget=2, size=6).draw(0)
    assert len(draw.rows["forget"]) == 2
    assert len(draw.rows["retain"]) == 6


def test_masked_weights_survive_decay_and_momentum_bit_for_bit() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    half = torch.zeros(4, 4, dtype=torch.bool)
    half[:2] = True
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    model(torch.ones(1, 4)).sum().backward()
    optimiser.step()
    before["0.weight"] = model[0].weight.detach().clone()  # momentum from before the mask
    mask = AppliedMask(model, {"0.weight": half, "1.weight": False, "1.bias": half[:, 0]})
    before |= {n: p.detach().clone() for n, p in model.named_parameters() if n != "0.weight"}
    for _ in range(5):
        optimiser.zero_grad()
        model(torch.ones(1, 4)).pow(2).sum().backward()
        mask.on_gradients()
        assert not model[0].weight.grad[2:].any()
        optimiser.step()
        mask.on_weights()
    assert torch.equal(model[0].weight[2:], before["0.weight"][2:])
    assert not torch.equal(model[0].weight[:2], before["0.weight"][:2])
    assert torch.equal(model[1].weight, before["1.weight"])
    assert torch.equal(model[1].bias[2:], before["1.bias"][2:])
    assert not torch.equal(model[1].bias[:2], before["1.bias"][:2])


def test_auto_is_the_cards_rate_from_half_a_billion_parameters() -> None:
    params = methods.params("npo", {})
    assert learning_rate(params, 1_000_000_000, adapter=False) == 1e-5
    assert learning_rate(params, 500_000_000, adapter=False) == 1e-5
    assert learning_rate(params, 1_000_000, adapter=False) == pytest.approx(2.2e-4, rel=0.05)
    assert learning_rate(params, 1_000_000_000, adapter=True) == pytest.approx(1e-4)
    assert learning_rate(replace(params, lr=3e-4), 1, adapter=True) == 3e-4
    told = {"trains": "adapter"}  # the card's rate is one of adapters already
    assert learning_rate(params, 1_000_000_000, adapter=True, card=told) == pytest.approx(1e-5)


def test_run_length_and_warm_up_follow_what_is_given() -> None:
    params = GradientParams()
    assert run_length(params, 5, 1_000_000_000) == 50
    assert run_length(params, 5, 1_000_000) > 50
    assert run_length(replace(params, epochs=3), 5, 1_000_000) == 15
    assert run_length(replace(params, epochs=3, max_steps=2), 5, 1_000_000) == 2
    assert warmup_steps(params, 5, 100) == 5
    assert warmup_steps(params, 50, 100) == 10
    assert warmup_steps(replace(params, warmup=0), 5, 100) == 0


@pytest.mark.parametrize(("text", "kind", "nll"), [
    ("nll=5.5", "nll", 5.5), ("placebo", "placebo", None), ("none", "none", None),
    ("reference", "reference", None),
])  # fmt: skip
def test_stop_levels_are_read(text: str, kind: str, nll: float | None) -> None:
    assert StopAt.parse(text) == StopAt(kind, nll)


@pytest.mark.parametrize("text", ["nll", "nll=", "nll=abc", "nll=inf", "placebo=3", "never"])
def test_other_stop_levels_are_refused(text: str) -> None:
    with pytest.raises(ExpungeError) as caught:
        StopAt.parse(text)
    assert caught.value.code == "E-USE-003"


def test_the_weighted_sum_adds_gradient_by_gradient() -> None:
    gradients = Gradients([torch.tensor([1.0, 2.0])], [torch.tensor([10.0, 20.0])], {})
    params = replace(GradientParams(), forget_weight=2.0, retain_weight=0.5)
    (total,) = weighted_sum(gradients, {}, params)
    assert total.tolist() == [7.0, 14.0]


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_combiner_sees_each_terms_whole_gradient(accumulation: int) -> None:
    """The sum as a combiner gives what one backward pass over both terms gives."""
    joint = first_gradient("npo", accumulation)
    separate = first_gradient("npo", accumulation, combine="sum")
    assert joint.keys() == separate.keys()
    for name, gradient in joint.items():
        torch.testing.assert_close(separate[name], gradient, rtol=1e-10, atol=1e-12)


def test_a_resting_forget_term_leaves_the_retain_gradient_alone() -> None:
    resting = first_gradient("npo", 1, paused=True, combine="sum")
    kept = first_gradient("npo", 1, forget_weight=0.0)
    for name, gradient in resting.items():
        torch.testing.assert_close(gradient, kept[name], rtol=1e-10, atol=1e-12)


def test_a_divergence_at_all_positions_runs_the_retain_rows_once() -> None:
    """One forward for the forget rows, one for the retain rows; the anchor has its own."""
    subject, rows = taught_subject().copy(), world()
    calls: list[int] = []
    subject.model.register_forward_hook(lambda *_: calls.append(1))
    module = methods.load("kl-min")
    method = GradientMethod.assemble(module, methods.params("kl-min", {"batch_size": 4}))
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )  # fmt: skip
    anchor = Frozen(taught_subject().model)
    step = StepGradient(
        method, task, Datasets(task), method.sample(task, method.params), lambda _: anchor, steps=5
    )
    step(subject.model, 0, lambda loss: loss.backward())
    assert len(calls) == 2
    assert anchor.forwards == 1


def first_gradient(
    method_id: str, accumulation: int, *, combine: str | None = None, paused: bool = False, **params
) -> dict[str, torch.Tensor]:
    """The engine's first gradient in float64, in the conformance suite's world."""
    module = vars(methods.load(method_id)) | ({"combine": combine} if combine else {})
    given = {"batch_size": 8 // accumulation, "accumulation": accumulation, **params}
    method = GradientMethod.assemble(SimpleNamespace(**module), methods.params(method_id, given))
    subject, rows = taught_subject().copy(), world()
    model = subject.model.double()
    task = Task(
        model=model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )  # fmt: skip
    anchor = Frozen(model)
    step = StepGradient(
        method, task, Datasets(task), method.sample(task, method.params), lambda _: anchor, steps=5
    )
    step.paused = paused
    step(model, 0, lambda loss: loss.backward())
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_random_states_come_back_after_an_interruption() -> None:
    import random

    from expunge.engine.session import isolated_randomness

    random.seed(5)
    expected = random.random()
    random.seed(5)

    def interrupted() -> None:
        with isolated_randomness():
            random.seed(0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert random.random() == expected
