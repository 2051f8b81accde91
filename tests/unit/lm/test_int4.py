"""A frozen base in four bits: codes, products, adapters on top."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from expunge.core.families import GradientParams
from expunge.engine.adapter import with_adapter
from expunge.engine.forward import Inputs, packed_logits
from expunge.lm.arch import Slots
from expunge.lm.int4 import GROUP, Int4Linear, hold_in_int4, packed, unpacked
from expunge.lm.load import load
from expunge.lm.quantise import dequantise, quantise, quantise_rtn
from expunge.testing import tiny_model


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def batch(vocab: int) -> Inputs:
    ids = torch.randint(3, vocab, (2, 8), generator=torch.Generator().manual_seed(0))
    return Inputs.from_labels(ids, torch.ones_like(ids), ids, torch.arange(2))


def test_two_codes_share_a_byte() -> None:
    codes = torch.arange(-7, 7, dtype=torch.int8).view(1, 14)
    held = packed(codes)
    assert (held.dtype, held.shape) == (torch.uint8, (1, 7))
    assert torch.equal(unpacked(held), codes)
    assert held[0, 0] == 1 + 16 * 2


@pytest.mark.parametrize("columns", [16, 33, 64, 100, 192])
def test_the_weight_is_the_rounded_one(columns: int) -> None:
    weight = matrix(5, columns)
    layer = Int4Linear(weight, None)
    expected = dequantise(*quantise(weight, 4, GROUP), columns)
    torch.testing.assert_close(layer.weight, expected, rtol=0, atol=0)
    assert float((layer.weight - weight).abs().max()) <= 0.5 * float(layer.scales.max()) * 1.001


def test_a_weight_takes_little_more_than_half_a_byte() -> None:
    layer = Int4Linear(matrix(96, 256), None)
    held = layer.codes.nbytes + layer.scales.nbytes
    assert layer.codes.nbytes == 96 * 256 // 2
    assert held <= 0.6 * 96 * 256
    assert not list(layer.parameters())


@pytest.mark.parametrize("is_biased", [True, False])
def test_it_multiplies_forward_and_backward_like_a_linear_of_the_rounded_weight(
    is_biased: bool,
) -> None:
    bias = matrix(1, 12)[0] if is_biased else None
    layer = Int4Linear(matrix(12, 70), bias)
    ours, theirs = (matrix(6, 70, seed=1).view(2, 3, 70).requires_grad_() for _ in range(2))
    layer(ours).pow(2).sum().backward()
    functional.linear(theirs, layer.weight, bias).pow(2).sum().backward()
    torch.testing.assert_close(layer(ours), functional.linear(ours, layer.weight, bias))
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_backward_pass_keeps_no_weight() -> None:
    """A linear layer would keep its weight, made anew, until then: four bytes a weight."""
    kept = []
    layer = Int4Linear(matrix(64, 64), None)
    x = matrix(2, 64).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        layer(x)
        assert sum(kept) < 64 * 64
        functional.linear(x, layer.weight)
    assert max(kept) == 64 * 64


def test_it_follows_autocast() -> None:
    layer = Int4Linear(matrix(8, 64), None)
    x = matrix(2, 64).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert x.grad.dtype == torch.float32
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(2, -1), rtol=2e-2, atol=2e-2)


def test_every_linear_of_the_blocks_is_held_in_four_bits_and_nothing_else(
    family: str, loud
) -> None:
    model, rounded = loud(family, hidden=64), loud(family, hidden=64)
    names = Slots(model).linears()
    head = model.get_output_embeddings()
    hold_in_int4(model)
    quantise_rtn(rounded, 4, GROUP)
    assert all(isinstance(model.get_submodule(name), Int4Linear) for name in names)
    assert not any(isinstance(module, Conv1D) for module in model.modules())
    assert model.get_output_embeddings() is head
    assert not any(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(
            packed_logits(model.eval(), batch(64)), packed_logits(rounded, batch(64))
        )


def test_a_block_takes_a_sixth_of_its_memory() -> None:
    def held(model: nn.Module) -> int:
        tensors = [*Slots(model).blocks.parameters(), *Slots(model).blocks.buffers()]
        return sum(tensor.nbytes for tensor in tensors)

    model = tiny_model("llama", hidden=128)
    before = held(model)
    hold_in_int4(model)
    assert held(model) < before / 6


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"], indirect=True)
def test_an_adapter_trains_over_it_and_saves_for_the_original(
    family: str, tmp_path: Path, loud, tokenizer
) -> None:
    original = tmp_path / "original"
    loud(family, vocab=len(tokenizer)).save_pretrained(original)
    tokenizer.save_pretrained(original)
    model = load(original).model
    hold_in_int4(model)
    held = {name: buffer.clone() for name, buffer in model.named_buffers()}
    names = Slots(model).linears()
    adapted = with_adapter(model, GradientParams(), {}, seed=0)
    moving = [p for p in adapted.parameters() if p.requires_grad]
    assert len(moving) == 2 * len(names)
    start = packed_logits(adapted, batch(60)).detach()
    optimiser = torch.optim.AdamW(moving, lr=1e-2)
    for _ in range(4):
        optimiser.zero_grad()
        functional.cross_entropy(packed_logits(adapted, batch(60)), batch(60).targets).backward()
        optimiser.step()
    trained = packed_logits(adapted, batch(60)).detach()
    assert (trained - start).abs().max() > 1e-2
    with adapted.disable_adapter():
        torch.testing.assert_close(packed_logits(adapted, batch(60)).detach(), start)
    for name, buffer in adapted.get_base_model().named_buffers():
        known = held.get(name.replace("base_layer.", ""))
        assert known is None or torch.equal(buffer, known)
    for config in adapted.peft_config.values():
        config.base_model_name_or_path = str(original)
    adapted.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        plain = packed_logits(load(original).model, batch(60))
        merged = packed_logits(load(tmp_path / "adapter").model, batch(60))
    gain = functional.cosine_similarity((merged - plain).flatten(), (trained - start).flatten(), 0)
    assert gain > 0.9
