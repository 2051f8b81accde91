"""NPO+IRM: the closed form, the square of a whole mean, the auxiliary rows, what lambda does."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest_methods import flat, slow_nll, three
from micro_task import prepared
from tiny_rig import exact, facts, saved

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.data.jsonl import write_rows
from expunge.engine.apart import rows_apart
from expunge.engine.change import load_change, read_manifest
from expunge.engine.check import check_forget
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.gradient import StepGradient
from expunge.engine.mean import Mean
from expunge.engine.method import GradientMethod
from expunge.engine.run import forget
from expunge.engine.slots.combine import Gradients, weighted_sum
from expunge.engine.sources import Frozen, Live
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import npo_irm
from expunge.requests.rows import Row
from expunge.testing import objective
from expunge.testing.methods import stage, taught_subject, world

ROWS = [-0.507347, -0.461081, -0.524633]


def view_of(model: Any, tensors: dict[str, torch.Tensor]) -> View:
    ids = tensors["input_ids"]
    inputs = Inputs.from_labels(
        ids, tensors["attention_mask"], tensors["labels"], torch.arange(len(ids))
    )
    return View(inputs, Live(model))


@pytest.mark.parametrize("at", range(3))
def test_t3_has_the_derivative_of_the_card_in_every_row(t3, at: int) -> None:
    labels = torch.full_like(t3.view["labels"], -100)
    labels[0, at + 1] = t3.view["labels"][0, at + 1]
    g = npo_irm.rescaled(view_of(t3.model, {**t3.view, "labels": labels})).value
    assert g.item() == pytest.approx(ROWS[at], abs=1e-5)


def test_t3_has_the_penalty_of_the_card(t3) -> None:
    g = npo_irm.rescaled(view_of(t3.model, t3.view))
    assert g.value.item() == pytest.approx(-0.497687, abs=1e-5)
    assert g.value.item() ** 2 == pytest.approx(0.247692, abs=1e-5)
    mean_of_squares = sum(row**2 for row in ROWS) / 3
    assert g.value.item() ** 2 != pytest.approx(mean_of_squares, rel=1e-3)


def test_it_is_zero_where_all_logits_are_equal(t3) -> None:
    assert npo_irm.rescaled(view_of(three([[5.0] * 4] * 3), t3.view)).value.item() == 0.0


def test_it_is_the_slope_of_the_cross_entropy_in_a_factor_on_the_logits(
    random_table, random_view
) -> None:
    """Slowly: the token mean at 1 + h and 1 - h, and autograd through the factor."""
    model, view = random_table(1), random_view(3)
    found = npo_irm.rescaled(view_of(model, view)).value
    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    twin = random_table(1)
    scaled = SimpleNamespace(table=w * twin.table.detach().double())
    (slope,) = torch.autograd.grad(flat(slow_nll(scaled, view)).mean(), w)
    assert found.item() == pytest.approx(slope.item(), rel=1e-5)
    found.backward()
    assert model.table.grad.abs().sum() > 0


def step_of(
    *, batch_size: int = 8, accumulation: int = 1, combine: Any = None, **params: Any
) -> SimpleNamespace:
    """The engine's first step in float64."""
    given = {
        "batch_size": batch_size, "accumulation": accumulation, "auxiliary_batch": 10,
        "irm_weight": 3.0, **params,
    }  # fmt: skip
    method = GradientMethod.assemble(methods.load("npo-irm"), methods.params("npo-irm", given))
    subject, rows = taught_subject().copy(), world()
    model = subject.model.double()
    task = Task(
        model=model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )  # fmt: skip
    npo_irm.prepare(task, method.params)
    method = method if combine is None else replace(method, combine=combine)
    anchor = Frozen(subject.copy().model)
    step = StepGradient(
        method, task, Datasets(task), method.sample(task, method.params), lambda _: anchor, steps=5
    )
    values = step(model, 0, lambda loss: loss.backward())
    gradient = [p.grad.clone() for p in model.parameters()]
    return SimpleNamespace(gradient=gradient, values=values, task=task, params=method.params)


def far(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Largest difference, relative to the largest entry."""
    pairs = list(zip(one, other, strict=True))
    return max(float((a - b).abs().max()) for a, b in pairs) / max(
        float(a.abs().max()) for a in one
    )


def test_the_square_of_the_mean_does_not_depend_on_the_cut() -> None:
    """The trap: each part's own square. Parts differ, so that is another gradient."""
    whole, parts = step_of(), step_of(batch_size=1, accumulation=8)
    for one, other in zip(whole.gradient, parts.gradient, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert whole.task.state[npo_irm.PENALTY] == pytest.approx(
        parts.task.state[npo_irm.PENALTY], rel=1e-12
    )

    def each_squared(gradients: Gradients, state: Any, params: Any) -> list[torch.Tensor]:
        again, made = gradients.again, weighted_sum(gradients, state, params)
        rows = rows_apart(again, "auxiliary", params.auxiliary_batch, replace(params, batch_size=1))
        for inputs in rows:
            g = npo_irm.rescaled(View(inputs, Live(again.task.model))).value
            slope = torch.autograd.grad(params.irm_weight * g**2, list(again.parameters))
            made = [d + s / len(rows) for d, s in zip(made, slope, strict=True)]
        return made

    assert far(whole.gradient, step_of(combine=each_squared).gradient) > 1e-3


def test_the_engine_s_gradient_is_the_slow_one_of_the_whole_loss() -> None:
    """Autograd through ``lambda * g ** 2`` over all auxiliary rows at once."""

    def slow(gradients: Gradients, state: Any, params: Any) -> list[torch.Tensor]:
        again = gradients.again
        (inputs,) = rows_apart(again, "auxiliary", 10, replace(params, batch_size=10))
        g = npo_irm.rescaled(View(inputs, Live(again.task.model))).value
        slope = torch.autograd.grad(params.irm_weight * g**2, list(again.parameters))
        combined = weighted_sum(gradients, state, params)
        return [d + s for d, s in zip(combined, slope, strict=True)]

    assert far(step_of().gradient, step_of(combine=slow).gradient) < 1e-6
    assert far(step_of().gradient, step_of(combine=weighted_sum).gradient) > 1e-3


def test_t3_is_the_preference_of_npo(t3) -> None:
    found = objective("npo-irm", t3.model, {"forget": t3.view}, t3.anchor, beta=0.1)
    assert found.loss == pytest.approx(13.092352, abs=1e-5)


def auxiliary_of(task: Task) -> list[str]:
    paired = task.paired["auxiliary"]
    return [paired.make(task.retain[0], 0, place).completion for place in range(paired.count)]


def test_the_retain_rows_stand_in_for_a_file(tmp_path: Path) -> None:
    task, _ = prepared("npo-irm")
    assert auxiliary_of(task) == [row.training.completion for row in world().retain]
    assert "auxiliary_digest" not in task.record
    file = tmp_path / "sums.jsonl"
    given = [Row(id=str(n), prompt=f"{n} and {n}", completion=f" {2 * n}") for n in range(3)]
    write_rows(file, given)
    other, _ = prepared("npo-irm", auxiliary=str(file))
    assert auxiliary_of(other) == [" 0", " 2", " 4"]
    assert other.record["auxiliary_digest"]
    assert json.loads(json.dumps(other.state)) == other.state


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(("line", "code"), [
    (None, "E-DATA-001"), ("", "E-DATA-005"), ('{"prompt": "a"}', "E-DATA-003"),
])  # fmt: skip
def test_a_bad_file_is_found_before_weights_load(
    line: str | None, code: str, original: Path, tmp_path: Path
) -> None:
    rows, file = world(), tmp_path / "bad.jsonl"
    if line is not None:
        file.write_text(line)
    report = check_forget(
        original, rows.forget, rows.retain, method="npo-irm", out=tmp_path / "out",
        params={"auxiliary": str(file)},
    )  # fmt: skip
    assert [problem.code for problem in report.problems] == [code]
    assert report.plan is None


def test_every_process_needs_an_auxiliary_row() -> None:
    task, method = prepared("npo-irm")
    two = replace(task, world=SimpleNamespace(size=4, rank=0))
    with pytest.raises(ExpungeError) as caught:
        npo_irm.prepare(two, replace(method.params, auxiliary_batch=3))
    assert caught.value.code == "E-USE-006"
    npo_irm.prepare(two, replace(method.params, auxiliary_batch=4))


def _micro(original: Path, out: Path, file: Path, **params: Any) -> dict[str, Any]:
    rows = world()
    given = {"max_steps": 6, "lr": 1e-3, "auxiliary": str(file), "auxiliary_batch": 6, **params}
    forget(
        original, rows.forget, rows.retain, method="npo-irm", params=given, stop_at="none", out=out
    )
    manifest = read_manifest(out)
    assert manifest is not None
    return manifest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Auxiliary rows of words the model has: its own retain rows, answers the other way round."""
    path, kept = tmp_path / "auxiliary.jsonl", world().retain
    replies = [row.completion for row in kept][::-1]
    turned = [
        Row(id=row.id, prompt=row.prompt, completion=reply)
        for row, reply in zip(kept, replies, strict=True)
    ]
    write_rows(path, turned)
    return path


def test_a_run_keeps_its_rows_and_goes_on_with_them(
    original: Path, file: Path, tmp_path: Path
) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "npo-irm" and event.done >= 3:
            raise KeyboardInterrupt

    whole = _micro(original, tmp_path / "whole", file, irm_weight=1.0)
    told = [measured["terms"]["penalty"] for measured in whole["history"]]
    assert told[0] == 0.0  # nothing is known before the first step
    assert all(penalty > 0 for penalty in told[1:])
    kept = (tmp_path / "whole" / "made" / "auxiliary.jsonl").read_text().splitlines()
    assert len(kept) == len(world().retain)
    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        _micro(original, tmp_path / "cut", file, irm_weight=1.0)
    write_rows(file, [Row(id="other", prompt="something", completion=" else")])
    _micro(original, tmp_path / "cut", file, irm_weight=1.0)
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")


def test_without_a_weight_it_is_npo_bit_for_bit(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no auxiliary row is looked at."""
    monkeypatch.setattr(npo_irm, "rows_apart", lambda *_: 1 / 0)
    rows, digests = world(), []
    for method, given in (("npo", {}), ("npo-irm", {"irm_weight": 0.0})):
        out = tmp_path / method
        forget(
            original, rows.forget, rows.retain, method=method, stop_at="none", out=out,
            params={"max_steps": 3, "lr": 1e-3, **given},
        )  # fmt: skip
        digests.append(folder_digest(out))
    assert digests[0] == digests[1]


def test_the_penalty_falls_by_its_weight(original: Path, file: Path, tmp_path: Path) -> None:
    """The ablation: without it the slope on the auxiliary rows stays, and weights differ."""

    def slope_after(name: str, weight: float) -> float:
        _micro(original, tmp_path / name, file, irm_weight=weight, max_steps=30)
        loaded = load(load_change(tmp_path / name).folder)
        task = Task(
            model=loaded.model, tokenizer=loaded.tokenizer,
            encoder=Subject(loaded.model, loaded.tokenizer).encoder,
            roles={"forget": world().forget, "retain": world().retain},
        )  # fmt: skip
        npo_irm.prepare(task, methods.params("npo-irm", {"auxiliary": str(file)}))
        datasets = Datasets(task)
        encoded = [
            task.encoder.encode(task.paired["auxiliary"].make(world().retain[0], 0, at), row=at)
            for at in range(len(world().retain))
        ]
        with torch.no_grad():
            mean: Mean = npo_irm.rescaled(View(datasets.batch(encoded), Live(loaded.model)))
        return abs(float(mean.value))

    free, bound = slope_after("free", 0.0), slope_after("bound", 20.0)
    assert folder_digest(tmp_path / "free") != folder_digest(tmp_path / "bound")
    assert bound < 0.7 * free


@pytest.fixture(scope="module")
def on_rig(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[float, ...]]:
    folder = tmp_path_factory.mktemp("rig")
    model = saved(folder)

    def run(name: str, **params: Any) -> tuple[float, ...]:
        given = {"batch_size": 24, "warmup": 0, "lr": 1e-3, "max_steps": 60, **params}
        forget(model, *facts(), method="npo-irm", params=given, stop_at="none", out=folder / name)
        loaded = load(load_change(folder / name).folder)
        return tuple(exact(Subject(loaded.model, loaded.tokenizer), rows) for rows in facts())

    return run


def test_it_forgets_every_fact_and_keeps_the_others(on_rig: Callable[..., Any]) -> None:
    forgotten, kept = on_rig("default")
    assert forgotten <= 0.1
    assert kept >= 0.9
