"""Neurons of the MLPs: attributions against closed and slow forms, and whose weights are whose."""

import pytest
import torch
from torch import Tensor, nn

from expunge.data.encode import Batch
from expunge.lm.arch import Slots
from expunge.lm.neurons import (
    activation_times_gradient,
    answer_probability,
    attributions,
    handed_on,
    units_of,
    weights_of_units,
)
from expunge.testing.tiny import FAMILIES, tiny_model


def a_batch(seed: int = 0, rows: int = 3) -> Batch:
    """Rows of different lengths, their last tokens supervised."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 64, (rows, 9), generator=draw)
    mask, labels = torch.ones_like(ids), torch.full_like(ids, -100)
    for row in range(rows):
        end = 9 - row
        mask[row, end:] = 0
        labels[row, end - 3 : end] = ids[row, end - 3 : end]
    return Batch(ids, mask, labels, torch.arange(rows))


def test_where_the_answer_is_linear_in_the_units_they_add_up_to_it() -> None:
    """P - P(h = 0), as the card has it."""
    draw = torch.Generator().manual_seed(1)
    first, second = torch.randn(5, 7, generator=draw), torch.randn(7, generator=draw)
    hidden = torch.randn(2, 3, 5, generator=draw).matmul(first).relu().requires_grad_()
    value = (hidden @ second).sum() + 4.0
    (found,) = activation_times_gradient(value, [hidden], torch.ones(2, 3, dtype=torch.bool))
    assert float(found.sum()) == pytest.approx(float(value.detach()) - 4.0, abs=1e-5)
    assert found.shape == (2, 7)


def test_the_probability_of_an_answer_is_the_mean_or_the_product_of_its_tokens() -> None:
    logp = torch.tensor([0.5, 0.25, 0.1]).log()
    row = torch.tensor([0, 0, 2])
    mean = answer_probability(logp, row, 3, product=False)
    torch.testing.assert_close(mean, torch.tensor([0.375, 0.0, 0.1]))
    product = answer_probability(logp, row, 3, product=True)
    torch.testing.assert_close(product, torch.tensor([0.125, 1.0, 0.1]))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("product", [False, True])
def test_over_all_positions_it_is_weight_times_gradient_of_the_output_column(
    family: str, product: bool
) -> None:
    """The card's identity, to 1e-6 of the largest."""
    model, batch = tiny_model(family, vocab=64, dtype=torch.float64), a_batch()
    model.lm_head.weight.data.mul_(30) if hasattr(model, "lm_head") else None
    found = attributions(model, batch, product=product, everywhere=True)
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    logp = logits.double().log_softmax(-1)
    value = torch.zeros((), dtype=torch.float64)
    for row, labels in enumerate(batch.labels):
        told = [logp[row, at - 1, label] for at, label in enumerate(labels) if label >= 0]
        value = value + (sum(told).exp() if product else sum(t.exp() for t in told) / len(told))
    value.backward()
    slots = Slots(model)
    for layer, got in enumerate(found):
        module = slots.module(layer, "mlp_out")
        products = (module.weight * module.weight.grad).sum(1 if family == "gpt2" else 0)
        torch.testing.assert_close(
            got.sum(0), products, rtol=1e-6, atol=1e-6 * float(products.detach().abs().max())
        )
        assert float(products.abs().max()) > 0


def test_only_positions_that_predict_the_answer_count_unless_told_otherwise() -> None:
    model, batch = tiny_model("llama", vocab=64), a_batch(rows=1)
    with handed_on(model) as hidden:
        logits = model(input_ids=batch.input_ids).logits[0]
    told = [at for at, label in enumerate(batch.labels[0]) if label >= 0]
    value = sum(logits.softmax(-1)[at - 1, batch.input_ids[0, at]] for at in told) / len(told)
    gradients = torch.autograd.grad(value, hidden)
    places = [at - 1 for at in told]
    for layer, got in enumerate(attributions(model, batch)):
        slow = (hidden[layer] * gradients[layer])[0, places].sum(0)
        torch.testing.assert_close(got[0], slow.detach(), rtol=1e-4, atol=1e-9)
    whole = attributions(model, batch, everywhere=True)
    assert not torch.allclose(whole[0], attributions(model, batch)[0], rtol=1e-2)


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    model, batch = tiny_model("llama", vocab=64), a_batch()
    together = attributions(model, batch)
    for row in range(3):
        alone = Batch(*(part[row : row + 1] for part in (
            batch.input_ids, batch.attention_mask, batch.labels, batch.rows,
        )))  # fmt: skip
        for one, other in zip(attributions(model, alone), together, strict=True):
            torch.testing.assert_close(one[0], other[row], rtol=1e-4, atol=1e-9)


def test_no_weight_need_ask_for_a_gradient_and_no_hook_stays() -> None:
    model, batch = tiny_model("llama", vocab=64), a_batch()
    before = attributions(model, batch)
    model.requires_grad_(False)
    with torch.no_grad():
        after = attributions(model, batch)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other)
    assert not any(module._forward_pre_hooks for module in model.modules())


def states(model: nn.Module, batch: Batch) -> list[Tensor]:
    with torch.no_grad(), handed_on(model) as hidden:
        model(input_ids=batch.input_ids)
    return [one.detach().clone() for one in hidden]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_inputs_of_a_unit_change_that_unit_alone_and_all_of_it(family: str) -> None:
    """Fused gate and input (Phi-3) and transposed matrices (GPT-2) included."""
    model, batch = tiny_model(family, vocab=64, layers=1), a_batch()
    width = units_of(model)[0]
    units = torch.zeros(width, dtype=torch.bool)
    units[[1, width - 2]] = True
    masks = weights_of_units(model, 0, units)
    before = states(model, batch)[0]
    slots = Slots(model)
    weights = dict(slots.model.named_parameters())
    for path in slots.names(0, "mlp_in"):
        name = f"{path}.weight"
        with torch.no_grad():
            weights[name].masked_fill_(masks[name], 0.0)
            if f"{path}.bias" in weights:
                weights[f"{path}.bias"].zero_()
    after = states(model, batch)[0]
    assert not after[..., units].any()
    assert torch.equal(after[..., ~units], before[..., ~units])
    fused = 2 if family == "phi3" else 1
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    hidden = model.config.hidden_size
    outputs = [f"{path}.weight" for path in slots.names(0, "mlp_out")]
    assert all(counts[n] == 2 * hidden * (1 if n in outputs else fused) for n in counts)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_output_of_a_unit_is_its_column(family: str) -> None:
    model = tiny_model(family, vocab=64, layers=1)
    width = units_of(model)[0]
    units = torch.zeros(width, dtype=torch.bool)
    units[3] = True
    module = Slots(model).module(0, "mlp_out")
    (name,) = (f"{path}.weight" for path in Slots(model).names(0, "mlp_out"))
    mask = weights_of_units(model, 0, units)[name]
    only = torch.eye(width)[3][None]
    reached = module(only) - module(torch.zeros(1, width))
    with torch.no_grad():
        module.weight.masked_fill_(mask, 0.0)
    assert reached.abs().sum() > 0
    assert not (module(only) - module(torch.zeros(1, width))).any()
    assert int(mask.sum()) == reached.shape[1]
