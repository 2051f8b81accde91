"""NPO+SAM: where each gradient is taken, that weights come back, and that no part is lost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from quadratic import A, B, Bowls
from tiny_rig import exact, facts, saved

from expunge.core.registry import methods
from expunge.engine import nearby
from expunge.engine.change import load_change
from expunge.engine.check import check_forget
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.method import GradientMethod
from expunge.engine.projection import length
from expunge.engine.run import forget
from expunge.engine.slots.combine import Gradients
from expunge.engine.sources import Frozen
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import npo_sam
from expunge.testing import objective
from expunge.testing.methods import stage, taught_subject, world

GENTLE = {"batch_size": 24, "warmup": 0, "lr": 1e-3, "max_steps": 60}


class Parabola:
    """A step whose forget term is ``0.5 theta^2`` in one dimension."""

    step = 0

    def __init__(self, theta: float) -> None:
        self.parameters = [torch.nn.Parameter(torch.tensor([theta], dtype=torch.float64))]

    def gradients(self) -> Gradients:
        (theta,) = self.parameters
        return Gradients([theta.detach().clone()], [torch.zeros(1, dtype=torch.float64)], {}, self)


def test_the_card_s_closed_form() -> None:
    """``0.5 theta^2`` at 1 with rho 0.1: the gradient is the one at 1.1."""
    again = Parabola(1.0)
    (found,) = npo_sam.combine(again.gradients(), {}, npo_sam.Params(rho=0.1))
    assert found.item() == pytest.approx(1.1)
    assert again.parameters[0].item() == 1.0


@pytest.mark.parametrize("rho", [0.05, 0.3])
def test_the_forget_gradient_is_taken_uphill_and_the_retain_one_is_not(rho: float) -> None:
    bowls = Bowls([1.5, -0.7, 0.4])
    theta = bowls.theta.detach().clone()
    params = npo_sam.Params(rho=rho, forget_weight=0.5, retain_weight=2.25)
    (found,) = npo_sam.combine(bowls.gradients(), {}, params)
    g = A @ theta
    there = theta + rho * g / g.norm()
    expected = 0.5 * A @ there + 2.25 * B @ (theta - 1)
    torch.testing.assert_close(found, expected)
    both_moved = 0.5 * A @ there + 2.25 * B @ (there - 1)
    downhill = 0.5 * A @ (theta - rho * g / g.norm()) + 2.25 * B @ (theta - 1)
    for wrong in (both_moved, downhill):
        assert float((found - wrong).norm()) > 0.01
    assert torch.equal(bowls.theta, theta)


def test_a_gradient_without_a_direction_is_left_alone() -> None:
    again = Parabola(0.0)
    (found,) = npo_sam.combine(again.gradients(), {}, npo_sam.Params(rho=0.1))
    assert found.item() == 0.0


def step_of(
    id: str, *, accumulation: int = 1, combine: Any = None, **params: Any
) -> tuple[torch.nn.Module, StepGradient]:
    """A float64 model and the engine's step of a method on it."""
    given = {"batch_size": 8 // accumulation, "accumulation": accumulation, **params}
    method = GradientMethod.assemble(methods.load(id), methods.params(id, given))
    method = method if combine is None else replace(method, combine=combine)
    subject, rows = taught_subject().copy(), world()
    model = subject.model.double()
    task = Task(
        model=model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )  # fmt: skip
    anchor = Frozen(subject.copy().model)
    step = StepGradient(
        method, task, Datasets(task), method.sample(task, method.params), lambda _: anchor, steps=5
    )
    return model, step


def gradients_after(model: torch.nn.Module, step: StepGradient) -> list[torch.Tensor]:
    step(model, 0, lambda loss: loss.backward())
    return [p.grad.clone() for p in model.parameters()]


def test_it_is_exact_however_a_step_is_cut() -> None:
    """The original code's last part of the step alone gives another gradient: the trap."""
    whole = gradients_after(*step_of("npo-sam", rho=0.5))
    parts = gradients_after(*step_of("npo-sam", rho=0.5, accumulation=8))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    seen: list[Gradients] = []

    def last_part(gradients: Gradients, state: Any, params: Any) -> Any:
        chunks = gradients.again._chunks
        gradients.again._chunks = chunks[-1:]
        seen.append(gradients.again.gradients())
        gradients.again._chunks = chunks
        return npo_sam.combine(replace(gradients, forget=seen[0].forget), state, params)

    wrong = gradients_after(*step_of("npo-sam", rho=0.5, accumulation=8, combine=last_part))
    off = length([a - b for a, b in zip(whole, wrong, strict=True)])
    assert off > 1e-3 * length(whole)


def test_the_engine_s_step_is_the_slow_one() -> None:
    """Shift by hand to where npo's own gradient says, take npo's gradient there, shift back."""
    found = gradients_after(*step_of("npo-sam", rho=0.5, retain_weight=0.0))
    model, step = step_of("npo", retain_weight=0.0)
    here = gradients_after(model, step)
    model.zero_grad()
    with torch.no_grad():
        for parameter, g in zip(model.parameters(), here, strict=True):
            parameter.add_(g, alpha=0.5 / length(here))
    there = gradients_after(model, step)
    for one, other in zip(found, there, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    assert length([a - b for a, b in zip(here, there, strict=True)]) > 0.01 * length(here)


def test_weights_are_what_they_were_after_the_look_around() -> None:
    model, step = step_of("npo-sam", rho=0.5)
    before = [p.detach().clone() for p in model.parameters()]
    gradients_after(model, step)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_t3_is_the_preference_of_npo(t3) -> None:
    found = objective("npo-sam", t3.model, {"forget": t3.view}, t3.anchor, beta=0.1)
    assert found.loss == pytest.approx(13.092352, abs=1e-5)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def _micro(original: Path, out: Path, method: str = "npo-sam", **params: Any) -> str:
    rows, given = world(), {"max_steps": 4, "lr": 1e-3, "retain_weight": 2.25, **params}
    forget(original, rows.forget, rows.retain, method=method, params=given, stop_at="none", out=out)
    return folder_digest(out)


def test_without_a_shift_it_is_npo_bit_for_bit(original: Path, tmp_path: Path) -> None:
    flat = _micro(original, tmp_path / "flat", rho=0.0)
    assert flat == _micro(original, tmp_path / "npo", "npo")
    assert flat != _micro(original, tmp_path / "sharp")


def test_the_direction_of_the_shift_matters(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ablation: the same length the other way gives other weights."""
    uphill = _micro(original, tmp_path / "up", rho=0.1)
    shifted = nearby.shifted
    monkeypatch.setattr(npo_sam, "shifted", lambda ps, along, factor: shifted(ps, along, -factor))
    assert _micro(original, tmp_path / "down", rho=0.1) != uphill


def test_bfloat16_weights_are_refused_before_any_load(original: Path, tmp_path: Path) -> None:
    rows = world()
    report = check_forget(
        original, rows.forget, rows.retain, method="npo-sam", out=tmp_path / "out",
        params={"precision": "bf16-masters"},
    )  # fmt: skip
    assert [problem.code for problem in report.problems] == ["E-USE-006"]
    assert "bf16" in report.problems[0].next


@pytest.fixture(scope="module")
def on_rig(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[float, ...]]:
    folder = tmp_path_factory.mktemp("rig")
    model = saved(folder)

    def run(rho: float) -> tuple[float, ...]:
        """Forget NLL, and the share of forget and of retain rows that are known by heart."""
        out, given = folder / str(rho), {**GENTLE, "rho": rho}
        told = forget(model, *facts(), method="npo-sam", params=given, stop_at="none", out=out)
        loaded = load(load_change(out).folder)
        known = [exact(Subject(loaded.model, loaded.tokenizer), rows) for rows in facts()]
        return told["forget_nll"], *known

    return run


def test_it_forgets_every_fact_and_keeps_the_others(on_rig: Callable[..., Any]) -> None:
    """And goes less far than NPO in as many steps: uphill its damping is weaker behind it."""
    nll, forgotten, kept = on_rig(0.01)
    assert forgotten <= 0.1
    assert kept >= 0.9
    assert nll < on_rig(0.0)[0] - 0.5
