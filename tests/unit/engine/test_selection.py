"""Selection: which forget rows, which of their tokens, and how much each weighs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from expunge.core.registry import methods
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.method import GradientMethod
from expunge.engine.slots.sample import Draw
from expunge.engine.slots.select import Selection, applied, everything
from expunge.engine.sources import Frozen
from expunge.engine.task import Paired, Task
from expunge.requests.rows import Turn
from expunge.testing import tiny_model
from expunge.testing.methods import taught_subject, world

WEIGHED = ["ga", "npo", "simnpo", "undial", "wga", "idk-dpo", "rmu"]
"""Sums of rows, means of tokens, distributions, a view beside the rows, hidden states."""


def task_of(**given) -> Task:
    rows, subject = world(), taught_subject().copy()
    return Task(
        model=subject.model.double(), tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain}, **given,
    )  # fmt: skip


def gradient(
    task: Task, method_id: str, *, size: int = 8, accumulation: int = 1, only: int | None = None
) -> tuple[Mapping[str, Tensor], dict[str, float]]:
    """Gradient and terms of the first step, retain term off; ``only`` one entry of the draw."""
    given = {"retain_weight": 0.0, "batch_size": size // accumulation, "accumulation": accumulation}
    params = methods.params(method_id, given)
    method = GradientMethod.assemble(methods.load(method_id), params)
    task.model.zero_grad()
    anchor = Frozen(tiny_model("llama", vocab=len(task.tokenizer), seed=7).double())
    sampler = method.sample(task, params)
    if only is not None:
        sampler = OnlyOne(sampler, only)
    if method.prepare is not None:
        method.prepare(task, params)
    step = StepGradient(method, task, Datasets(task), sampler, lambda _: anchor, steps=5)
    terms = step(task.model, 0, lambda loss: loss.backward())
    named = task.model.named_parameters()
    return {n: p.grad.clone() for n, p in named if p.grad is not None}, terms


class OnlyOne:
    """A sampler whose draws have one forget row."""

    steps_per_epoch = 1

    def __init__(self, sampler, place: int) -> None:
        self._sampler, self._cut = sampler, slice(place, place + 1)

    def draw(self, step: int) -> Draw:
        draw = self._sampler.draw(step)
        rows = {**draw.rows, "forget": draw.rows["forget"][self._cut]}
        wording = {**draw.wording, "forget": draw.wording["forget"][self._cut]}
        return Draw(step, rows, draw.epochs[self._cut], wording)


def weighed(weights: Sequence[float] | None) -> Task:
    return replace(task_of(), weights=weights)


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method_id", WEIGHED)
def test_a_weight_scales_the_gradient_of_its_row_exactly(method_id: str) -> None:
    """One row in a step: its gradient times w (a power of two, which no rounding blurs)."""
    plain, terms = gradient(weighed(None), method_id, only=2)
    scaled, same = gradient(weighed([0.25] * len(world().forget)), method_id, only=2)
    assert any(value.any() for value in plain.values())
    assert_equal(scaled, {name: 0.25 * value for name, value in plain.items()})
    assert same["forget"] == terms["forget"]


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("method_id", ["npo", "undial", "idk-dpo", "rmu"])
def test_the_step_is_the_weighted_sum_of_its_rows(method_id: str, accumulation: int) -> None:
    rows = len(world().forget)
    weights = [0.0, 2.0, 0.5, 1.0] * (rows // 4)
    expected: dict[str, Tensor] = {}
    for row, weight in enumerate(weights):
        alone = [float(other == row) for other in range(rows)]
        for name, value in gradient(weighed(alone), method_id)[0].items():
            expected[name] = expected.get(name, torch.zeros(())) + weight * value
    assert_equal(gradient(weighed(weights), method_id, accumulation=accumulation)[0], expected)


def test_ones_change_nothing() -> None:
    rows = len(world().forget)
    for method_id in ("ga", "npo"):
        plain, ones = (gradient(weighed(w), method_id)[0] for w in (None, [1.0] * rows))
        assert all(torch.equal(plain[name], ones[name]) for name in plain)


def test_a_wording_and_what_stands_beside_it_weigh_what_the_row_weighs() -> None:
    weights = [float(row) for row in range(len(world().forget))]
    beside = Paired(lambda row, wording, which: Turn("a", f" {which}"), count=5, take=2)
    kept = Paired(lambda row, wording, which: Turn("a", " b"), count=5, beside="retain")
    task = replace(task_of(), weights=weights, paired={"two": beside, "kept": kept})
    datasets = Datasets(task)
    rows = {"forget": [5, 0, 5, 3], "retain": [1, 2]}
    draw = Draw(0, rows, [0] * 4, {"forget": [1, 0, 0, 1], "retain": [0, 0]})

    def weights_of(view: str) -> list[float] | None:
        found = datasets.weights(view, datasets.inputs(view, draw))
        return None if found is None else found.tolist()

    assert weights_of("forget") == [5, 0, 5, 3]
    assert weights_of("refusal") == [5, 0, 5, 3]
    assert weights_of("two") == [5, 5, 0, 0, 5, 5, 3, 3]
    assert weights_of("retain") is None
    assert weights_of("kept") is None


def test_only_the_chosen_parts_of_each_wording_are_trained_on() -> None:
    task = task_of()
    row = task.forget[4]
    places = [(turn.completion.index(row.value), len(turn.completion) - 1) for turn in row.turns]
    chosen = applied(task, Selection([7, 4], tokens={4: [[place] for place in places]}))
    assert [one.id for one in chosen.forget] == [task.forget[7].id, row.id]
    whole, part = (Datasets(one).items("forget") for one in (task, chosen))
    assert [item.labels for item in part[0]] == [item.labels for item in whole[7]]
    for item in part[1]:
        told = [label for label in item.labels if label >= 0]
        assert task.tokenizer.decode(told).strip() == row.value


@pytest.mark.parametrize(
    ("rows", "weights", "words"),
    [
        ([], None, "at least one"),
        ([1, 2], [1.0], "1 weights for 2"),
        ([1, 2], [1.0, -1.0], "at least 0"),
        ([1, 2], [1.0, float("nan")], "finite"),
        ([1, 2], [0.0, 0.0], "not all 0"),
    ],
)
def test_a_selection_that_cannot_be_trained_on_is_refused(rows, weights, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Selection(rows, weights)


def test_the_default_takes_every_row_as_it_is() -> None:
    task = task_of()
    chosen = applied(task, everything(task, task.params))
    assert list(chosen.forget) == list(task.forget)
    assert chosen.weights is None
    assert not chosen.tokens
