"""What a combiner may ask for: the step once more, at the weights as they then are."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.masks import AppliedMask
from expunge.engine.mean import Mean, mean_of
from expunge.engine.method import GradientMethod
from expunge.engine.nearby import derivative, shifted
from expunge.engine.slots.combine import Gradients, weighted_sum
from expunge.engine.sources import Frozen
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.testing.methods import taught_subject, world

Look = Callable[[Gradients], Any]


def looked(
    look: Look, *, batch_size: int = 8, accumulation: int = 1, together: Any = None, **slots: Any
) -> SimpleNamespace:
    """One step of npo in float64 whose combiner asks ``look``, then gives the sum.

    Returns:
        ``seen`` what ``look`` answered, ``model`` as the step leaves it, ``values`` of the step.
    """
    seen = []

    def combine(gradients: Gradients, state: Any, params: Any) -> list[Tensor]:
        seen.append(look(gradients))
        return weighted_sum(gradients, state, params)

    module = SimpleNamespace(**(vars(methods.load("npo")) | {"combine": combine} | slots))
    given = {"batch_size": batch_size, "accumulation": accumulation}
    method = GradientMethod.assemble(module, methods.params("npo", given))
    subject, rows = taught_subject().copy(), world()
    model = subject.model.double()
    task = Task(
        model=model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )  # fmt: skip
    anchor = Frozen(subject.copy().model)
    step = StepGradient(
        method, task, Datasets(task), method.sample(task, method.params), lambda _: anchor,
        steps=5, world=together,
    )  # fmt: skip
    values = step(model, 2, lambda loss: loss.backward())
    return SimpleNamespace(seen=seen[0], model=model, values=values, step=step)


def same(one: list[Tensor], other: list[Tensor], rtol: float = 1e-12) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol)


def directions(again: Any, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=draw, dtype=p.dtype) for p in again.parameters]


@pytest.mark.parametrize("accumulation", [1, 4])
def test_asked_at_once_it_is_the_first_pass_over_again(accumulation: int) -> None:
    def look(first: Gradients) -> tuple[Gradients, Gradients]:
        return first, first.again.gradients()

    made = looked(look, batch_size=8 // accumulation, accumulation=accumulation)
    first, anew = made.seen
    same(first.forget, anew.forget)
    same(first.retain, anew.retain)
    assert anew.values == pytest.approx(first.values, rel=1e-12)
    assert any(g.any() for g in first.forget)
    assert first.again.step == 2


def test_the_losses_are_those_of_the_step_and_so_are_their_gradients() -> None:
    def look(first: Gradients) -> tuple[Gradients, dict[str, float], list[list[Tensor]]]:
        losses = first.again.losses()
        sides = [derivative(losses[s], first.again.parameters, graph=False) for s in losses]
        return first, {name: float(loss.detach()) for name, loss in losses.items()}, sides

    first, values, sides = looked(look, batch_size=2, accumulation=4).seen
    assert values == pytest.approx(dict(first.values), rel=1e-12)
    same(sides[0], list(first.forget))
    same(sides[1], list(first.retain))


def _curvature(first: Gradients) -> list[Tensor]:
    """``hess(L_f + 2 L_r) v`` through the graph."""
    with sdpa_kernel(SDPBackend.MATH):
        losses = first.again.losses()
        total = losses["forget"] + 2 * losses["retain"]
        slopes = derivative(total, first.again.parameters, graph=True)
    along = torch.stack(
        [(s * v).sum() for s, v in zip(slopes, directions(first.again), strict=True)]
    ).sum()
    return derivative(along, first.again.parameters, graph=False)


def test_derivatives_of_gradients_do_not_depend_on_the_cut() -> None:
    whole = looked(_curvature, batch_size=8, accumulation=1).seen
    parts = looked(_curvature, batch_size=1, accumulation=8).seen
    same(whole, parts, rtol=1e-10)
    assert max(float(g.abs().max()) for g in whole) > 1e-3


def test_they_are_those_of_gradients_taken_to_either_side() -> None:
    """The slow way: a central difference of `gradients`, itself summed part by part."""

    def look(first: Gradients) -> tuple[list[Tensor], list[Tensor]]:
        again, ends = first.again, []
        for factor in (1e-5, -1e-5):
            with shifted(again.parameters, directions(again), factor):
                there = again.gradients()
            ends.append([f + 2 * r for f, r in zip(there.forget, there.retain, strict=True)])
        return _curvature(first), [(a - b) / 2e-5 for a, b in zip(*ends, strict=True)]

    exact, slow = looked(look, batch_size=4, accumulation=2).seen
    largest = max(float(g.abs().max()) for g in exact)
    for one, other in zip(exact, slow, strict=True):
        assert float((one - other).abs().max()) < 0.01 * largest  # norms compute in float32


def test_it_looks_from_where_the_weights_have_been_moved_to() -> None:
    def look(first: Gradients) -> tuple[Gradients, Gradients, dict[str, float]]:
        again = first.again
        with shifted(again.parameters, directions(again), 0.01):
            there = again.gradients()
            losses = {name: float(loss.detach()) for name, loss in again.losses().items()}
        return first, there, losses

    first, there, losses = looked(look).seen
    assert losses == pytest.approx(dict(there.values), rel=1e-12)
    assert there.values["forget"] != pytest.approx(first.values["forget"], rel=1e-3)
    assert not torch.allclose(first.forget[0], there.forget[0], rtol=1e-3)

    def moved(gradients: Gradients) -> None:
        with torch.no_grad():
            for p, v in zip(gradients.again.parameters, directions(gradients.again), strict=True):
                p.add_(v, alpha=0.01)

    left = looked(lambda first: (moved(first), first.again.gradients())[1]).seen
    same(list(left.forget), list(there.forget))


def test_what_is_left_moved_is_part_of_the_step_but_not_where_a_mask_holds() -> None:
    frozen = "model.layers.0.mlp.down_proj.weight"

    def look(first: Gradients) -> None:
        with torch.no_grad():
            for parameter in first.again.parameters:
                parameter.add_(1.0)

    model = taught_subject().copy().model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    half = torch.zeros_like(before[frozen], dtype=torch.bool)
    half[0] = True
    mask = AppliedMask(model, {frozen: half, "lm_head.weight": False})
    parameters = [p for p in model.parameters() if p.requires_grad]
    look(Gradients([], [], {}, SimpleNamespace(parameters=parameters)))
    mask.on_weights()
    after = dict(model.named_parameters())
    assert torch.equal(after[frozen][1:], before[frozen][1:])
    torch.testing.assert_close(after[frozen][0], before[frozen][0] + 1)
    assert torch.equal(after["lm_head.weight"], before["lm_head.weight"])
    torch.testing.assert_close(after["model.norm.weight"], before["model.norm.weight"] + 1)


def test_only_what_may_move_is_offered_and_the_model_is_left_without_gradients() -> None:
    def look(first: Gradients) -> tuple[int, bool, bool]:
        first.again.gradients()
        parameters = list(first.again.parameters)
        aligned = [p.shape for p in parameters] == [g.shape for g in first.forget]
        return len(parameters), aligned, all(p.grad is None for p in parameters)

    made = looked(look)
    count, aligned, is_clean = made.seen
    assert count == sum(p.requires_grad for p in made.model.parameters())
    assert aligned
    assert is_clean


def _pulled(step: Step, params: Any) -> Mean:
    return 2.0 * step.retain.nll  # a power of two scales float32 without rounding


def test_terms_beside_stay_outside_and_are_added_once() -> None:
    """They are in the step's gradient as they are, whatever was asked for again."""

    def look(first: Gradients) -> Gradients:
        return first.again.gradients()

    bare, beside = looked(look), looked(look, BESIDE={"pulled": _pulled})
    same(list(bare.seen.forget), list(beside.seen.forget))
    same(list(bare.seen.retain), list(beside.seen.retain))
    for plain, more, kept in zip(
        bare.model.parameters(), beside.model.parameters(), bare.seen.retain, strict=True
    ):
        torch.testing.assert_close(more.grad, plain.grad + 2 * kept, rtol=1e-10, atol=1e-12)


def test_a_combiner_may_look_at_each_term_beside() -> None:
    """By name, with the weight it has in the loss, and at the weights as they then are."""

    def look(first: Gradients) -> tuple[Gradients, Gradients]:
        with shifted(first.again.parameters, directions(first.again), 0.01):
            return first, first.again.gradients()

    terms = {"pulled": _pulled, "pushed": lambda step, params: -step.forget.nll}
    for found in looked(look, batch_size=2, accumulation=4, BESIDE=terms).seen:
        assert set(found.beside) == {"pulled", "pushed"}
        same(list(found.beside["pulled"]), [2 * kept for kept in found.retain], rtol=1e-10)
        assert not torch.allclose(found.beside["pushed"][0], found.beside["pulled"][0])


def test_losses_leave_terms_beside_out() -> None:
    def look(first: Gradients) -> Mapping[str, Tensor]:
        return {name: loss.detach() for name, loss in first.again.losses().items()}

    bare, beside = looked(look).seen, looked(look, BESIDE={"pulled": _pulled}).seen
    assert set(beside) == {"forget", "retain"}
    assert {n: float(v) for n, v in beside.items()} == {n: float(v) for n, v in bare.items()}


def test_several_processes_have_gradients_but_no_graph() -> None:
    """A world of two that adds nothing: what one of them is told."""
    two = SimpleNamespace(rank=0, size=2, sharded=False, first=True, total=lambda values: values)

    def look(first: Gradients) -> str:
        first.again.gradients()
        with pytest.raises(ExpungeError) as caught:
            first.again.losses()
        return caught.value.code

    assert looked(look, together=two).seen == "E-USE-006"


def test_gradients_are_summed_over_processes() -> None:
    """Each of two processes that see the same rows; the denominators are those of both."""
    totals: list[Tensor] = []

    def doubled(values: Tensor) -> Tensor:
        totals.append(values)
        return values.mul_(2)

    two = SimpleNamespace(rank=0, size=2, sharded=False, first=True, total=doubled)
    first, anew = looked(lambda g: (g, g.again.gradients()), together=two).seen
    same(list(first.forget), list(anew.forget))
    assert first.values == pytest.approx(dict(anew.values))
    assert any(values is first.forget[0] for values in totals)


def _bowl(at: float, model: torch.nn.Module, view: str) -> Callable[[Step, Any], Mean]:
    """``0.5 ||theta - at||^2``, a mean over rows so that a step can be cut."""

    def term(step: Step, params: Any) -> Mean:
        rows = len(getattr(step, view).row)
        squares = [((p - at) ** 2).sum() / 2 for p in model.parameters()]
        return mean_of(torch.stack(squares).sum().expand(rows))

    return term


@pytest.mark.parametrize("accumulation", [1, 8])
def test_quadratic_terms_have_their_closed_forms(accumulation: int) -> None:
    """Gradients theta and theta - 1; at theta + v they are v further; the curvature is 1."""
    found = {}
    subject, rows = taught_subject().copy(), world()
    model = subject.model.double()

    def look(first: Gradients) -> None:
        again = first.again
        theta = [p.detach().clone() for p in again.parameters]
        along = directions(again)
        same(list(first.forget), theta)
        same(list(first.retain), [t - 1 for t in theta])
        with shifted(again.parameters, along, 0.5):
            there = again.gradients()
        same(list(there.forget), [t + v / 2 for t, v in zip(theta, along, strict=True)])
        for parameter, before in zip(again.parameters, theta, strict=True):
            assert torch.equal(parameter, before)
        losses = again.losses()
        slopes = [derivative(losses[s], again.parameters, graph=True) for s in losses]
        across = torch.stack([(f * r).sum() for f, r in zip(*slopes, strict=True)]).sum()
        same(derivative(across, again.parameters, graph=False), [2 * t - 1 for t in theta])
        square = sum(float((t**2).sum()) for t in theta) / 2
        found.update(square=square, value=float(losses["forget"].detach()))

    module = SimpleNamespace(
        CARD=methods.load("npo").CARD,
        forget=_bowl(0.0, model, "forget"), retain=_bowl(1.0, model, "retain"),
        combine=lambda g, state, params: (look(g), weighted_sum(g, state, params))[1],
    )  # fmt: skip
    given = {"batch_size": 8 // accumulation, "accumulation": accumulation}
    method = GradientMethod.assemble(module, methods.params("npo", given))
    task = Task(
        model=model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )  # fmt: skip
    step = StepGradient(
        method, task, Datasets(task), method.sample(task, method.params), None, steps=5
    )
    step(model, 0, lambda loss: loss.backward())
    assert found["value"] == pytest.approx(found["square"], rel=1e-12)
