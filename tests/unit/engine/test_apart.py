"""A term on rows of its own, exact over parts and processes."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core.families import GradientParams
from expunge.engine.apart import rows_apart, value_and_gradient
from expunge.engine.forward import Inputs
from expunge.engine.mean import Mean
from expunge.engine.sources import Live
from expunge.engine.task import Paired, Task
from expunge.engine.view import View
from expunge.requests.rows import Turn
from expunge.testing.methods import taught_subject, world


def again(step: int = 3, *, rank: int = 0, processes: int = 1, seed: int = 0) -> Any:
    """A step in float64 whose apart rows are the retain rows."""
    subject, rows = taught_subject().copy(), world()
    turns = [row.training for row in rows.retain]

    def make(row: Any, wording: int, candidate: int) -> Turn:
        return turns[candidate]

    together = SimpleNamespace(rank=rank, size=processes, total=lambda values: values)
    task = Task(
        model=subject.model.double(), tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain}, seed=seed,
        world=together if processes > 1 else None,
    )  # fmt: skip
    task.paired["other"] = Paired(make, count=len(turns), beside="retain")
    return SimpleNamespace(task=task, step=step, parameters=list(task.model.parameters()))


def drawn(parts: list[Inputs]) -> list[int]:
    return [row for part in parts for row in part.items.tolist()]


def rows_of(batch_size: int, size: int = 10, **options: Any) -> list[Inputs]:
    return rows_apart(again(**options), "other", size, GradientParams(batch_size=batch_size))


def test_the_draw_is_a_function_of_seed_name_and_step() -> None:
    assert drawn(rows_of(4)) == drawn(rows_of(4))
    assert drawn(rows_of(4)) != drawn(rows_of(4, step=4))
    assert drawn(rows_of(4)) != drawn(rows_of(4, seed=1))
    many = drawn(rows_of(100, size=2000))
    count = again().task.paired["other"].count
    share = np.bincount(many, minlength=count) / 2000
    assert set(many) == set(range(count))
    assert np.abs(share - 1 / count).max() < 5 * (1 / count / 2000) ** 0.5


@pytest.mark.parametrize(("batch_size", "sizes"), [(16, [10]), (4, [4, 3, 3]), (1, [1] * 10)])
def test_rows_come_in_batches_no_larger_than_those_of_the_step(
    batch_size: int, sizes: list[int]
) -> None:
    assert [len(part.items) for part in rows_of(batch_size)] == sizes


@pytest.mark.parametrize("batch_size", [1, 4])
def test_processes_share_one_draw_and_make_as_many_passes(batch_size: int) -> None:
    whole = drawn(rows_of(batch_size, size=7))
    shares = [rows_of(batch_size, size=7, rank=rank, processes=2) for rank in (0, 1)]
    assert sorted(row for share in shares for row in drawn(share)) == sorted(whole)
    assert len(shares[0]) == len(shares[1])


def slope(view: View) -> Mean:
    return view.nll


def test_value_and_gradient_do_not_depend_on_the_cut() -> None:
    """One backward pass of the mean over all rows: the slow way."""
    found = {}
    for batch_size in (10, 3, 1):
        step = again()
        parts = rows_apart(step, "other", 10, GradientParams(batch_size=batch_size))
        found[batch_size] = value_and_gradient(step, parts, slope)
        assert all(p.grad is None for p in step.parameters)
    step = again()
    (whole,) = rows_apart(step, "other", 10, GradientParams(batch_size=10))
    loss = View(whole, Live(step.task.model)).nll.value
    slow = torch.autograd.grad(loss, step.parameters)
    for value, gradient in found.values():
        assert value == pytest.approx(float(loss.detach()), rel=1e-12)
        for one, other in zip(gradient, slow, strict=True):
            # a factor before or after the float32 of normalisations differs in their last bits
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-7)
    for one, other in zip(found[3][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


def test_a_mean_of_means_would_be_another_value() -> None:
    """Parts of unequal length: the trap of averaging over parts."""
    step = again()
    parts = rows_apart(step, "other", 10, GradientParams(batch_size=3))
    value, _ = value_and_gradient(step, parts, slope)
    means = [float(View(part, Live(step.task.model)).nll.value.detach()) for part in parts]
    tokens = [len(part.targets) for part in parts]
    assert value == pytest.approx(float(np.average(means, weights=tokens)), rel=1e-12)
    assert len(set(tokens)) > 1
    assert value != pytest.approx(float(np.mean(means)), rel=1e-6)


def test_old_gradients_do_not_leak_in() -> None:
    step = again()
    parts = rows_apart(step, "other", 4, GradientParams(batch_size=4))
    clean = value_and_gradient(step, parts, slope)
    for parameter in step.parameters:
        parameter.grad = torch.ones_like(parameter)
    soiled = value_and_gradient(step, parts, slope)
    for one, other in zip(clean[1], soiled[1], strict=True):
        assert torch.equal(one, other)
