"""Rows end to end in one line: the same numbers as padded, in the same order."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from expunge.core.registry import methods
from expunge.engine.combinations import PACKABLE
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs, packed_hidden, packed_logits, stack
from expunge.engine.gradient import StepGradient
from expunge.engine.method import GradientMethod
from expunge.engine.sources import Frozen, Joint
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.hooks import EMBEDDING
from expunge.testing import tiny_model
from expunge.testing.methods import taught_subject, world
from expunge.testing.tiny import FAMILIES

WINDOW = 64
"""Sliding windows of the tiny families; the long rows are longer."""


def loud(family: str, **options: int) -> nn.Module:
    """A tiny model whose rows would show if they saw each other."""
    model = tiny_model(family, vocab=64, layers=3, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def batch(lengths: list[int], seed: int = 0) -> Inputs:
    """Rows of these lengths, every second token supervised."""
    draw = torch.Generator().manual_seed(seed)
    shape = len(lengths), max(lengths)
    ids = torch.randint(3, 60, shape, generator=draw)
    mask = (torch.arange(shape[1]) < torch.tensor(lengths)[:, None]).long()
    labels = torch.where(mask.bool() & (torch.arange(shape[1]) % 2 == 0), ids, -100)
    return Inputs.from_labels(ids, mask, labels, torch.arange(len(lengths)))


def both(inputs: Inputs) -> tuple[Inputs, Inputs]:
    return inputs, replace(inputs, packing=True)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("lengths", [[5, 9, 12], [WINDOW + 30, WINDOW + 9, 7]], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_are_exact_also_beyond_a_sliding_window(
    family: str, lengths: list[int]
) -> None:
    model = loud(family)
    padded, packed = both(batch(lengths))
    with torch.no_grad():
        close(packed_logits(model, packed), packed_logits(model, padded))
        layers = [EMBEDDING, 0, -2]
        ours, theirs = (packed_hidden(model, inputs, layers) for inputs in (packed, padded))
    real = padded.attention_mask.bool()
    for layer in layers:
        close(ours[layer][real], theirs[layer][real])
        assert not ours[layer][~real].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_that_may_pack_are_those_measured_here(family: str) -> None:
    assert tiny_model(family, vocab=64).config.model_type in PACKABLE


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_of_ones_would_have_let_rows_see_each_other(family: str) -> None:
    """The comparison above would fail if it could."""
    model, inputs = loud(family), batch([9, 12])
    real = inputs.attention_mask.bool()
    ids = inputs.input_ids[real][None]
    positions = (inputs.attention_mask.cumsum(1) - 1)[real][None]
    with torch.no_grad():
        leaking = model(
            input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids)
        ).logits[inputs.keep[real][None]]
        apart = packed_logits(model, replace(inputs, packing=True))
    first = int(inputs.keep[0].sum())
    close(leaking[:first], apart[:first])
    assert (leaking - apart)[first:].abs().max() > 1e-3 * apart.abs().max()


def test_the_model_gets_one_line_without_padding() -> None:
    model, shapes = loud("llama"), []
    model.model.embed_tokens.register_forward_hook(lambda *given: shapes.append(given[1][0].shape))
    packed_logits(model, replace(batch([5, 9, 12]), packing=True))
    assert shapes == [(1, 26)]


def test_views_that_share_a_forward_share_a_line() -> None:
    model, shapes = loud("llama"), []
    model.model.embed_tokens.register_forward_hook(lambda *given: shapes.append(given[1][0].shape))
    views = [replace(batch([11, 12], seed), packing=True) for seed in (0, 1)]
    joint = Joint(model, views)
    for view in views:
        close(joint.logits(view).detach(), packed_logits(model, view).detach())
    assert shapes[0] == (1, 46)
    assert stack(views).packing


def test_all_real_positions_can_be_looked_at() -> None:
    model = loud("qwen3")
    views = [View(inputs, Frozen(model)).over("all_nonpad") for inputs in both(batch([5, 9]))]
    close(views[1].logits, views[0].logits)
    assert len(views[1].logits) == 14


@pytest.mark.parametrize("method_id", ["npo", "kl-min", "rmu"])
def test_a_step_has_the_same_gradient(method_id: str) -> None:
    padded, packed = (gradient(method_id, packing=packing) for packing in (False, True))
    assert padded.keys() == packed.keys()
    for name, expected in padded.items():
        torch.testing.assert_close(packed[name], expected, rtol=1e-9, atol=1e-12)


def gradient(method_id: str, *, packing: bool) -> dict[str, Tensor]:
    """The engine's first gradient in float64."""
    params = methods.params(method_id, {"batch_size": 6, "packing": packing})
    method = GradientMethod.assemble(methods.load(method_id), params)
    subject, rows = taught_subject().copy(), world()
    model = subject.model.double()
    task = Task(
        model=model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )  # fmt: skip
    if method.prepare is not None:
        method.prepare(task, params)
    anchor = Frozen(taught_subject(seed=1).copy().model.double())
    step = StepGradient(
        method, task, Datasets(task, packing=packing), method.sample(task, params),
        lambda _: anchor, steps=5,
    )  # fmt: skip
    step(model, 0, lambda loss: loss.backward())
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
