"""Attention maps: the library's own, with their gradient, whatever form the model computes in."""

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.engine import attention
from expunge.engine.adapter import with_adapter
from expunge.engine.anchors import Remembered
from expunge.engine.attention import attention_maps, query_and_key_only
from expunge.engine.forward import Inputs
from expunge.engine.masks import moving
from expunge.engine.precision import computing
from expunge.engine.sources import Counting, Frozen, Joint, Live
from expunge.engine.start import Start
from expunge.engine.view import View
from expunge.lm.arch import Slots
from expunge.lm.hooks import without_dropout
from expunge.testing import tiny_model
from expunge.testing.tiny import FAMILIES

LENGTHS = (7, 5, 3)


def a_batch(packing: bool = False) -> Inputs:
    """Three rows of different lengths, padded on the right, all but the first token supervised."""
    ids = torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[at < length for at in range(7)] for length in LENGTHS]).long()
    labels = torch.where(mask.bool(), ids, -100)
    return Inputs.from_labels(ids, mask, labels, torch.arange(3), packing)


def eager(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """What the library itself says."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    found = model(
        input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, output_attentions=True
    ).attentions
    model.set_attn_implementation(before)
    return list(found)


def wavy(maps: list[Tensor]) -> Tensor:
    """A number that depends on every entry in its own way."""
    return sum((one * torch.arange(one.numel()).cos().view(one.shape)).sum() for one in maps)


def gradients(model: nn.Module, value: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    value.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_maps_and_their_gradient_are_those_of_the_library(family: str) -> None:
    model, inputs = tiny_model(family, vocab=64, layers=3), a_batch()
    before = model.config._attn_implementation
    maps, own = attention_maps(model, inputs), eager(model, inputs)
    assert model.config._attn_implementation == before
    assert len(maps) == 3
    for one, other in zip(maps, own, strict=True):
        assert one.shape == (3, 4, 7, 7)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        assert not one.triu(1).any(), "a position looks ahead"
        for row, length in enumerate(LENGTHS):
            sums = one[row, :, :length].sum(-1)
            torch.testing.assert_close(sums, torch.ones_like(sums))
            assert not one[row, :, :length, length:].any(), "padding is looked at"
    found, expected = gradients(model, wavy(maps)), gradients(model, wavy(own))
    assert found.keys() >= {name for name, gradient in expected.items() if gradient.any()}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


def test_what_is_computed_again_is_computed_in_the_same_form(monkeypatch) -> None:
    model, inputs = tiny_model("llama", vocab=64, layers=2), a_batch()
    plain = gradients(model, wavy(attention_maps(model, inputs)))
    model.train()
    with computing(model, GradientParams(checkpointing=True)), without_dropout(model):
        again = gradients(model, wavy(attention_maps(model, inputs)))
        assert model.config._attn_implementation == "sdpa"
        monkeypatch.setattr(attention, "_computed_again_under", lambda *_: nullcontext())
        with pytest.raises(torch.utils.checkpoint.CheckpointError):
            gradients(model, wavy(attention_maps(model, inputs)))
    assert again.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient)


def test_the_form_comes_back_when_the_forward_pass_fails() -> None:
    model = tiny_model("llama", vocab=64)
    with pytest.raises(IndexError):
        attention_maps(model, replace(a_batch(), input_ids=torch.full((3, 7), 1000)))
    assert model.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks for module in model.modules())


def test_maps_are_as_exact_as_the_model() -> None:
    """The library forms them in float32; in float64 the padding of a batch would then show."""
    model, inputs = tiny_model("llama", vocab=64).double(), a_batch()
    alone = Inputs.from_labels(
        inputs.input_ids[2:, :3], inputs.attention_mask[2:, :3], inputs.input_ids[2:, :3],
        torch.arange(1),
    )  # fmt: skip
    for whole, part in zip(
        attention_maps(model, inputs), attention_maps(model, alone), strict=True
    ):
        assert whole.dtype == torch.float64
        torch.testing.assert_close(whole[2:, :, :3, :3], part, rtol=1e-13, atol=1e-14)


def test_of_bfloat16_weights_maps_are_in_float32() -> None:
    model, inputs = tiny_model("llama", vocab=64, dtype=torch.bfloat16), a_batch()
    with torch.no_grad():
        both = attention_maps(model, inputs), eager(model, inputs)
    assert {one.dtype for one in both[0]} == {torch.float32}
    off = [float((maps[-1][0].float().sum(-1) - 1).abs().max()) for maps in both]
    assert off[0] < 1e-5
    assert off[1] > 1e-4, "the library's maps were rounded to three digits"


def test_packed_rows_are_padded_for_their_maps() -> None:
    model = tiny_model("llama", vocab=64)
    for one, other in zip(
        attention_maps(model, a_batch(packing=True)), attention_maps(model, a_batch()), strict=True
    ):
        assert torch.equal(one, other)


def test_a_family_without_maps_is_refused(monkeypatch) -> None:
    model = tiny_model("llama", vocab=64)
    Slots(model).module(1, "attention").register_forward_hook(lambda _, __, out: (out[0], None))
    with pytest.raises(ExpungeError, match="E-MODEL-007"):
        attention_maps(model, a_batch())


def test_a_view_offers_them_and_weighs_the_gradient_of_each_row() -> None:
    model, inputs = tiny_model("llama", vocab=64), a_batch()
    weights = torch.tensor([0.0, 1.0, 3.0])
    view = View(inputs, Live(model), weights=weights)
    assert view.attention is view.attention
    for one, other in zip(view.attention, attention_maps(model, inputs), strict=True):
        assert torch.equal(one, other)
    weighed = gradients(model, wavy(view.attention))
    by_hand = [
        one * weights[:, None, None, None] for one in attention_maps(model, inputs)
    ]  # fmt: skip
    for name, gradient in gradients(model, wavy(by_hand)).items():
        torch.testing.assert_close(weighed[name], gradient, rtol=1e-4, atol=1e-6)


def test_the_anchor_is_the_model_with_its_weights_put_back_or_its_adapter_off() -> None:
    model, inputs = tiny_model("llama", vocab=64), a_batch()
    before = [one.detach() for one in attention_maps(model, inputs)]
    start = Start(model, moving(model).keys())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    remembered = Remembered(start, {}, Frozen(start))
    view = View(inputs, Live(model), lambda: remembered)
    for one, other, now in zip(view.anchor.attention, before, view.attention, strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad
        assert not torch.allclose(one, now, atol=1e-3)
    assert remembered.forwards == 1
    with pytest.raises(LookupError):
        _ = View(inputs, Remembered(start, {})).attention

    plain = tiny_model("llama", vocab=64)
    adapted = with_adapter(plain, GradientParams(), {}, seed=0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    off = Frozen(adapted, adapted.disable_adapter)
    found = View(inputs, Live(adapted), lambda: off)
    for one, other, now in zip(found.anchor.attention, before, found.attention, strict=True):
        torch.testing.assert_close(one, other)
        assert not torch.allclose(one, now, atol=1e-3)


def test_a_change_of_the_model_shows_in_its_maps() -> None:
    model, inputs = tiny_model("llama", vocab=64), a_batch()

    @contextmanager
    def louder(given: nn.Module):
        with torch.no_grad():
            Slots(given).module(0, "attention_in")[0].weight.mul_(9)
        yield
        with torch.no_grad():
            Slots(given).module(0, "attention_in")[0].weight.div_(9)

    view = View(inputs, Live(model))
    assert not torch.allclose(view.changed(louder).attention[0], view.attention[0], atol=1e-3)


def test_where_only_denominators_are_counted_they_are_zeros() -> None:
    view = View(a_batch(), Counting(64, 32, 3))
    assert view.is_counted
    assert [one.shape for one in view.attention] == [(3, 1, 7, 7)] * 3
    assert not any(one.any() for one in view.attention)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_that_may_move_are_those_that_a_blocks_own_map_depends_on(family: str) -> None:
    """What makes values changes the maps of blocks above, never that of its own block."""
    model = tiny_model(family, vocab=64, layers=2)
    allowed = query_and_key_only(model, range(2))
    assert allowed.keys() == {name for name, _ in model.named_parameters()}
    maps = attention_maps(model, a_batch())
    seen = 0
    for layer in range(2):
        names = [f"{name}.weight" for name in Slots(model).names(layer, "attention_in")]
        weights = [model.get_parameter(name) for name in names]
        found = torch.autograd.grad(
            wavy([maps[layer]]), weights, retain_graph=True, allow_unused=True
        )
        for name, weight, gradient in zip(names, weights, found, strict=True):
            entry = allowed.pop(name)
            moves = entry if isinstance(entry, Tensor) else torch.full_like(weight, entry).bool()
            depends = torch.zeros_like(moves) if gradient is None else gradient != 0
            assert torch.equal(moves, depends)
            seen += int(moves.any())
    assert seen >= 2
    assert not any(bool(torch.as_tensor(entry).any()) for entry in allowed.values())


def test_blocks_are_chosen_and_unknown_projections_refused(monkeypatch) -> None:
    model = tiny_model("llama", vocab=64, layers=3)
    allowed = query_and_key_only(model, [-1])
    moved = {name for name, entry in allowed.items() if entry is True}
    assert moved == {f"model.layers.2.self_attn.{one}_proj.weight" for one in "qk"}
    monkeypatch.setattr(attention, "APART", ("q_proj", "elsewhere"))
    with pytest.raises(ExpungeError, match="E-MODEL-007"):
        query_and_key_only(model, [0])
    layout = SimpleNamespace(
        paths=lambda slot: (f"self_attn.{'o' if 'out' in slot else 'q'}_proj",)
    )
    monkeypatch.setattr(Slots, "layout", layout)
    with pytest.raises(ExpungeError, match="E-MODEL-007"):
        query_and_key_only(model, [0])


def test_some_rows_of_a_view_are_what_they_were_among_all() -> None:
    model, inputs = tiny_model("llama", vocab=64).double(), a_batch()
    weights = torch.tensor([1.0, 2.0, 3.0])
    view = View(inputs, Live(model), lambda: Frozen(model), weights=weights)
    some = view.only(torch.tensor([2, 0]))
    parts = torch.split(view.logits, view.lengths.tolist())
    torch.testing.assert_close(some.logits, torch.cat([parts[2], parts[0]]))
    torch.testing.assert_close(some.anchor.logits, some.logits)
    assert some.row.tolist() == [2, 0]
    assert some.labels.tolist() == [*inputs.input_ids[2, 1:3], *inputs.input_ids[0, 1:]]
    weighed = gradients(model, some.logits.square().sum())
    plain = View(inputs, Live(model)).only(torch.tensor([2, 0]))
    scale = torch.cat([torch.full((2, 1), 3.0), torch.full((6, 1), 1.0)])
    for name, gradient in gradients(model, (scale * plain.logits.square()).sum()).items():
        torch.testing.assert_close(weighed[name], gradient)


def test_a_shared_forward_holds_the_inputs_it_knows_by_their_id() -> None:
    """Else the id of inputs that are gone may become that of others, which get their logits."""
    source = Joint(tiny_model("llama", vocab=64), [])
    view = View(a_batch(), source).only(torch.tensor([1]))
    assert view.logits.shape == (4, 64)
    assert [held for held, _ in source._made.values()] == [view.inputs]
