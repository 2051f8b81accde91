"""BLUR: both closed forms, what comes first, the clip, and the three forget losses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hidden_views import Held, held_view
from tiny_rig import exact, facts, knowing, saved

from expunge.core.families import GradientParams
from expunge.core.registry import methods
from expunge.engine import steering
from expunge.engine.change import load_change
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.method import GradientMethod
from expunge.engine.projection import grad_cos, inner, length
from expunge.engine.run import forget
from expunge.engine.slots.combine import Gradients, weighted_sum
from expunge.engine.sources import Frozen
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import blur
from expunge.testing import objective
from expunge.testing.methods import stage, taught_subject, world


def combined(forgets: list[float], keeps: list[float], **params: Any) -> list[float]:
    """Of two parameters with one entry each, so that products run over parameters."""
    parts = [[torch.tensor([x], dtype=torch.float64) for x in side] for side in (forgets, keeps)]
    made = blur.combine(Gradients(*parts, {}), {}, blur.Params(**params))
    return [float(part) for part in made]


def test_the_card_s_closed_form_in_both_forms() -> None:
    """With gamma = 1 and lambda = 1 the two published forms are one."""
    found = combined([3.0, 4.0], [1.0, 0.0])
    assert found == pytest.approx([3.64, 3.52])
    assert found[0] * 3 + found[1] * 4 == pytest.approx(25.0)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_question_answering_form_is_g_r_plus_gamma_minus_c_times_g_f(gamma: float) -> None:
    c = 3.0 / 25
    expected = [1.0 + (gamma - c) * 3.0, (gamma - c) * 4.0]
    assert combined([3.0, 4.0], [1.0, 0.0], forget_weight=gamma) == pytest.approx(expected)


@pytest.mark.parametrize("weight", [1.0, 800.0, 1200.0])
def test_the_hazardous_knowledge_form_weighs_what_is_left_of_g_r(weight: float) -> None:
    c = 3.0 / 25
    expected = [3.0 + weight * (1.0 - 3 * c), 4.0 - weight * 4 * c]
    found = combined([3.0, 4.0], [1.0, 0.0], retain_weight=weight)
    assert found == pytest.approx(expected)
    assert found[0] * 3 + found[1] * 4 == pytest.approx(25.0)


def test_reversed_keeping_comes_first() -> None:
    found = combined([3.0, 4.0], [2.0, 0.0], reverse=True, retain_weight=1.5, forget_weight=0.5)
    assert found == pytest.approx([1.5 * 2.0, 0.5 * 4.0])


def test_a_forget_gradient_without_a_direction_leaves_the_sum() -> None:
    assert combined([0.0, 9e-13], [1.0, 2.0]) == pytest.approx([1.0, 2.0])
    assert combined([0.0, 2e-12], [1.0, 2.0]) == pytest.approx([1.0, 0.0], abs=1e-11)


def test_the_projection_is_over_all_weights_not_parameter_by_parameter() -> None:
    found = combined([3.0, 4.0], [1.0, 0.0])
    one_by_one = [3.0, 4.0]  # each part of g_r is parallel to its part of g_f
    assert found != pytest.approx(one_by_one, rel=1e-2)


def first_step(
    combine: Callable[..., Any] | None = None, *, accumulation: int = 1, **params: Any
) -> tuple[list[torch.Tensor], Gradients]:
    """What the engine leaves after one step in float64, and what the combiner saw."""
    given = {"batch_size": 8 // accumulation, "accumulation": accumulation, **params}
    method = GradientMethod.assemble(methods.load("blur"), methods.params("blur", given))
    seen: list[Gradients] = []

    def spy(gradients: Gradients, state: Any, params: GradientParams) -> Any:
        seen.append(gradients)
        return (combine or blur.combine)(gradients, state, params)

    subject, rows = taught_subject().copy(), world()
    model = subject.model.double()
    task = Task(
        model=model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )  # fmt: skip
    anchor = Frozen(subject.copy().model)
    step = StepGradient(
        replace(method, combine=spy), task, Datasets(task), method.sample(task, method.params),
        lambda _: anchor, steps=5,
    )  # fmt: skip
    step(model, 0, lambda loss: loss.backward())
    return [p.grad.clone() for p in model.parameters()], seen[0]


@pytest.mark.parametrize("loss", ["npo", "ga"])
def test_the_step_goes_along_the_forget_gradient_as_if_there_were_no_retain_rows(
    loss: str,
) -> None:
    """And with a plain sum it does not: the ablation."""
    left, seen = first_step(forget_loss=loss, forget_weight=0.7, retain_weight=30.0)
    square = length(seen.forget) ** 2
    assert inner(left, seen.forget) == pytest.approx(0.7 * square, rel=1e-8)
    summed, _ = first_step(weighted_sum, forget_loss=loss, forget_weight=0.7, retain_weight=30.0)
    assert abs(inner(summed, seen.forget) / (0.7 * square) - 1) > 0.05
    rest = [d - 0.7 * f for d, f in zip(left, seen.forget, strict=True)]
    assert abs(grad_cos(rest, seen.forget)) < 1e-8
    assert grad_cos(rest, seen.retain) > 0.1


def test_parts_are_summed_before_they_are_projected() -> None:
    """To project each part and add up, as a loop over parts would, gives something else."""
    whole, _ = first_step(retain_weight=30.0)
    parts, _ = first_step(accumulation=4, retain_weight=30.0)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    wrong = [torch.stack(made).mean(0) for made in zip(*_each_part(), strict=True)]
    assert length([a - b for a, b in zip(wrong, whole, strict=True)]) > 0.01 * length(whole)


def _each_part() -> list[list[torch.Tensor]]:
    """The combined gradient of each quarter of the step by itself."""
    made = []
    params = methods.params("blur", {"batch_size": 8, "retain_weight": 30.0})
    method = GradientMethod.assemble(methods.load("blur"), params)
    sampler_of = method.sample
    for part in range(4):
        subject, rows = taught_subject().copy(), world()
        model = subject.model.double()
        task = Task(
            model=model, tokenizer=subject.tokenizer, encoder=subject.encoder,
            roles={"forget": rows.forget, "retain": rows.retain},
        )  # fmt: skip
        whole = sampler_of(task, params)
        anchor = Frozen(subject.copy().model)

        class Quarter:
            steps_per_epoch = 1

            def draw(self, step: int, whole=whole, part=part):
                return whole.draw(step).chunk(part, 4)

        step = StepGradient(method, task, Datasets(task), Quarter(), lambda _, a=anchor: a, steps=5)
        step(model, 0, lambda loss: loss.backward())
        made.append([p.grad.clone() for p in model.parameters()])
    return made


def test_the_losses_are_those_of_the_methods_they_are_named_after(t3) -> None:
    views = {"forget": t3.view}
    found = objective("blur", t3.model, views, t3.anchor)
    assert found.loss == pytest.approx(13.092352, abs=1e-5)
    ascent = objective("blur", t3.model, views, forget_loss="ga")
    assert ascent.loss == pytest.approx(-0.464952, abs=1e-5)


def test_misdirection_has_the_closed_form_of_its_card(monkeypatch) -> None:
    monkeypatch.setattr(steering, "direction", lambda *_: torch.tensor([0.6, 0.8]))
    now = Held({0: torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])})
    given = {"forget_loss": "rmu", "layer": 0, "steering": 2.0, "include_bos": True}
    loss = blur.forget(Step({"forget": held_view(now)}), methods.params("blur", given)).value
    assert loss.item() == pytest.approx(1.10, abs=1e-6)


def test_what_is_clipped_is_the_combined_gradient(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The original code clips before it exists, which leaves the step as long as it was."""
    original, rows, made, taken = stage(tmp_path / "models"), world(), [], []
    combine, step = blur.combine, torch.optim.AdamW.step

    def long(*given: Any) -> list[torch.Tensor]:
        made.append(combine(*given))
        return made[-1]

    def spied(self: Any, *given: Any, **named: Any) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        taken.append(length([g for g in gradients if g is not None]))
        return step(self, *given, **named)

    monkeypatch.setattr(blur, "combine", long)
    monkeypatch.setattr(torch.optim.AdamW, "step", spied)
    forget(
        original, rows.forget, rows.retain, method="blur", stop_at="none", out=tmp_path / "out",
        params={"max_steps": 2, "retain_weight": 500.0, "lr": 1e-4},
    )  # fmt: skip
    assert len(made) == len(taken) == 2
    assert max(taken) <= 1.0 + 1e-4
    assert min(taken) > 0.9


@pytest.fixture(scope="module")
def on_rig(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Subject, str]]:
    folder = tmp_path_factory.mktemp("rig")
    model = saved(folder)

    def run(name: str, **params: Any) -> tuple[Subject, str]:
        given = {"batch_size": 24, "warmup": 0, "lr": 1e-3, "max_steps": 60, **params}
        forget(model, *facts(), method="blur", params=given, stop_at="none", out=folder / name)
        loaded = load(load_change(folder / name).folder)
        return Subject(loaded.model, loaded.tokenizer), folder_digest(folder / name)

    return run


@pytest.mark.parametrize("loss", ["npo", "rmu"])
def test_it_forgets_every_fact_and_keeps_the_others(on_rig: Callable[..., Any], loss: str) -> None:
    """With misdirection only the MLP outputs up to the steered block move."""
    given = {"layer": 1, "retain_weight": 10.0, "lr": 4e-3} if loss == "rmu" else {}
    forgotten, kept = facts()
    subject, _ = on_rig(loss, forget_loss=loss, **given)
    assert exact(subject, forgotten) <= 0.1
    assert exact(subject, kept) >= 0.9
    before, after = (dict(one.model.named_parameters()) for one in (knowing(), subject))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    matrices = {f"model.layers.{at}.mlp.down_proj.weight" for at in (0, 1)}
    assert moved == (matrices if loss == "rmu" else set(before))


def test_the_order_of_the_two_decides_which_one_gives_way(
    on_rig: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With much weight on keeping a plain sum forgets nothing in a few steps; the projection does.

    Weights differ between the plain sum, the projection, and the projection the other way round.
    """
    few = {"max_steps": 12, "retain_weight": 30.0}
    forgotten, _ = facts()
    first, first_weights = on_rig("first", **few)
    _, reverse_weights = on_rig("reverse", reverse=True, **few)
    monkeypatch.setattr(blur, "combine", weighted_sum)
    plain, plain_weights = on_rig("plain", **few)

    def known(subject: Subject) -> float:
        scored = subject.score([row.turn for row in forgotten])
        return sum(float(one.logp.sum()) for one in scored) / len(scored)

    assert len({first_weights, reverse_weights, plain_weights}) == 3
    assert known(first) < known(plain) - 0.5
