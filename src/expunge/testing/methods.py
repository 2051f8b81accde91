"""The conformance suite of methods: what every one of them must do, run on a tiny model."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.core.registry import methods
from expunge.engine.change import load_change, revert
from expunge.engine.check import check_forget
from expunge.engine.datasets import Datasets
from expunge.engine.exact.scheme import is_ensemble
from expunge.engine.forward import Inputs
from expunge.engine.gradient import StepGradient
from expunge.engine.method import GradientMethod
from expunge.engine.run import forget
from expunge.engine.slots.combine import weighted_sum
from expunge.engine.sources import Frozen
from expunge.engine.task import Task
from expunge.engine.view import Source
from expunge.lm.digest import folder_digest
from expunge.lm.folder import inspect_folder
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.testing.expect import expect
from expunge.testing.loss import objective
from expunge.testing.micro import Micro, micro_world, taught
from expunge.testing.tiny import tiny_model

STEPS = 6

DRAWS: dict[str, Any] = {
    "batch_size": 4,
    "accumulation": 1,
    "num_generations": 4,
    "new_tokens": 8,
    "steer_epochs": 1,
}
"""What a method that draws answers is given besides, so that few are drawn."""


def check_method(method_id: str) -> None:
    """Check what architecture section 6 asks of a method.

    It trains and changes weights; two runs give the same weights; its change loads, verifies and
    reverts bit for bit. The steps of every kind that trains are the engine's: the cut into
    micro-batches changes nothing (float64, 1e-12); `objective` equals the engine's own first step
    (1e-9). A method that draws answers has a policy gradient instead, the driver's.

    Raises:
        AssertionError: Naming the promise that does not hold.
    """
    with _promise(method_id, "its change loads, and two runs give the same weights"):
        _check_runs(method_id)
    if methods.card(method_id).kind == "reinforcement":
        with _promise(method_id, "it takes an adapter, and refuses what it cannot do"):
            _check_draws(method_id)
        return
    if methods.card(method_id).kind == "edit":
        return
    with _promise(method_id, "1 x 8 accumulation gives the same gradient as 8 x 1"):
        _check_accumulation(method_id)
    with _promise(method_id, "objective equals the engine's first step"):
        _check_objective(method_id)


def stage(folder: Path, *, seed: int = 0) -> Path:
    """A tiny model that knows its world, saved in Hugging Face format below ``folder``."""
    subject = taught_subject(seed)
    path = folder / "original"
    subject.model.save_pretrained(path)
    subject.tokenizer.save_pretrained(path)
    return path


def stage_base(folder: Path, *, seed: int = 0) -> Path:
    """The model of `stage` before it was taught anything, saved below ``folder``."""
    path = folder / "base"
    tokenizer = world(seed).tokenizer
    model = tiny_model("llama", vocab=len(tokenizer), hidden=32, layers=2, seed=seed, positions=128)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@cache
def world(seed: int = 0) -> Micro:
    """The micro world of the conformance suite."""
    return micro_world(people=4, seed=seed)


@cache
def taught_subject(seed: int = 0) -> Subject:
    """A tiny model that was taught the world; copy it before changing it."""
    small = world(seed)
    return taught(small, [*small.forget, *small.retain], epochs=8, hidden=32, layers=2, seed=seed)


def _check_runs(method_id: str) -> None:
    rows = world()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original = stage(folder)
        before = folder_digest(original)
        params: dict[str, Any] = {"max_steps": STEPS, "lr": 1e-3}
        if methods.card(method_id).kind == "exact":
            params["base"] = str(stage_base(folder))
        if methods.card(method_id).kind == "reinforcement":
            params |= DRAWS
        options: dict[str, Any] = {"method": method_id, "params": params, "stop_at": "none"}
        first = forget(original, rows.forget, rows.retain, out=folder / "a", **options)
        forget(original, rows.forget, rows.retain, out=folder / "b", **options)
        twice = folder_digest(folder / "a"), folder_digest(folder / "b")
        ended = hasattr(methods.load(method_id), "stop") and first["stopped_by"] == "method"
        if methods.card(method_id).kind == "edit" and first["steps"] < STEPS:  # is that all?
            free = {**options, "params": {**params, "max_steps": None}}
            all_of_it = forget(original, rows.forget, rows.retain, out=folder / "c", **free)
            ended = all_of_it["steps"] == first["steps"]
        if is_ensemble(methods.load(method_id)):  # it trains in stages, and STEPS are those of one
            ended = first["steps"] > 0 and first["steps"] % STEPS == 0
        expect(ended or first["steps"] == STEPS, f"it made {first['steps']} steps of {STEPS}")
        expect(first["weights_changed"] > 0, "it changed nothing")
        expect(twice[0] == twice[1], "two runs of one command gave different weights")
        beside = [load_change(folder / name).manifest["runtime"] for name in ("a", "b")]
        expect(beside[0] == beside[1], "two runs of one command gave different run-time parts")
        load(load_change(folder / "a").folder)
        expect(folder_digest(original) == before, "it changed the original's folder")
        revert(folder / "a")
        expect(inspect_folder(folder / "a").digest == before, "revert gave other weights")


def _check_draws(method_id: str) -> None:
    """An adapter that was drawn with loads like any other; rows end to end are refused by name."""
    rows = world()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original = stage(folder)
        options: dict[str, Any] = {
            "method": method_id, "stop_at": "none", "out": folder / "a",
            "params": {"max_steps": 2, "lr": 1e-2, **DRAWS},
        }  # fmt: skip
        summary = forget(original, rows.forget, rows.retain, adapter="lora", **options)
        expect(summary["weights_changed"] > 0, "its adapter does nothing")
        load(load_change(folder / "a").folder)
        options |= {"params": {**options["params"], "packing": True}, "out": folder / "b"}
        problems = check_forget(original, rows.forget, rows.retain, **options).problems
        expect([one.code for one in problems] == ["E-USE-006"], f"packing gave {problems}")


def _check_accumulation(method_id: str) -> None:
    whole = _gradient(method_id, batch_size=8, accumulation=1)
    parts = _gradient(method_id, batch_size=1, accumulation=8)
    expect(whole.keys() == parts.keys(), "other parameters got a gradient")
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-12, atol=1e-12)


def _check_objective(method_id: str) -> None:
    engine = _gradient(method_id, batch_size=8, accumulation=1, plain=True)
    method, task, datasets = _prepared(method_id, batch_size=8, accumulation=1)
    draw = method.sample(task, method.params).draw(0)
    made = {name: datasets.inputs(name, draw) for name in method.views}
    views = {name: _tensors(inputs) for name, inputs in made.items() if inputs is not None}
    objective(
        method_id, task.model, views, anchor=task.model, state=task.state, tensors=task.tensors,
        retain_weight=method.params.retain_weight,
    )  # fmt: skip
    for name, parameter in task.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, engine[name], rtol=1e-9, atol=1e-12)


def _gradient(
    method_id: str, *, batch_size: int, accumulation: int, plain: bool = False
) -> Mapping[str, Tensor]:
    """The engine's first gradient in float64; ``plain`` adds both sides up, whatever combines them.

    What a combiner makes of the gradients is for the method's own tests; that they are those of the
    objective is looked at here.
    """
    method, task, datasets = _prepared(method_id, batch_size=batch_size, accumulation=accumulation)
    if plain and method.combine is not None:
        method = replace(method, combine=weighted_sum)
    anchor: Source = Frozen(task.model)
    step = StepGradient(
        method, task, datasets, method.sample(task, method.params), lambda _: anchor, steps=STEPS
    )
    step(task.model, 0, lambda loss: loss.backward())  # type: ignore[no-untyped-call]
    return {n: p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None}


def _prepared(
    method_id: str, *, batch_size: int, accumulation: int
) -> tuple[GradientMethod, Task, Datasets]:
    """A method on the micro world in float64, its own preparations made.

    A combiner weighs gradients after the backward pass. With another weight than 1 that differs in
    the last bits of the float32 in which normalisations compute, so combiners are compared at 1.
    """
    module = methods.load(method_id)
    overrides: dict[str, Any] = {"batch_size": batch_size, "accumulation": accumulation}
    if hasattr(module, "combine"):
        overrides["retain_weight"] = 1.0
    params = methods.params(method_id, overrides)
    method = GradientMethod.assemble(module, params)
    subject = taught_subject().copy()
    model = subject.model.double()
    rows = world()
    task = Task(
        model=model,
        tokenizer=subject.tokenizer,
        encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )
    if method.prepare is not None:
        method.prepare(task, params)
    return method, task, Datasets(task)


def _tensors(inputs: Inputs) -> dict[str, Tensor]:
    labels = torch.full_like(inputs.input_ids, -100)
    labels[:, 1:][inputs.keep[:, :-1]] = inputs.targets
    return {
        "input_ids": inputs.input_ids,
        "attention_mask": inputs.attention_mask,
        "labels": labels,
        "rows": inputs.items,
    }


@contextmanager
def _promise(method_id: str, words: str) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{method_id}: {words}; but: {error}") from error
