import copy

import pytest
import torch

from expunge.lm.arch import Slots
from expunge.lm.quantise import dequantise, identity_rate, quantise, quantise_rtn
from expunge.testing.tiny import tiny_model


def test_codes_of_a_row_by_hand() -> None:
    codes, scale = quantise(torch.tensor([[-1.0, 0.33, 0.34, 0.9]]), bits=4)
    assert codes.flatten().tolist() == [-7, 2, 2, 6]
    assert float(scale) == pytest.approx(1 / 7)


def test_a_change_smaller_than_the_step_leaves_no_trace() -> None:
    before, _ = quantise(torch.tensor([[-1.0, 0.33, 0.34, 0.9]]), bits=4)
    after, _ = quantise(torch.tensor([[-1.0, 0.33, 0.355, 0.9]]), bits=4)
    beyond, _ = quantise(torch.tensor([[-1.0, 0.33, 0.36, 0.9]]), bits=4)
    assert torch.equal(before, after)
    assert not torch.equal(before, beyond)


@pytest.mark.parametrize(("bits", "group"), [(4, 128), (4, 10), (8, None), (2, 7)])
def test_rounding_moves_no_weight_by_more_than_half_a_step(bits: int, group: int | None) -> None:
    weight = torch.randn(6, 33, generator=torch.Generator().manual_seed(0)).double()
    codes, scale = quantise(weight, bits, group)
    restored = dequantise(codes, scale, 33)
    step = scale.expand_as(codes).flatten(1)[:, :33]
    assert ((restored - weight).abs() <= step / 2 + 1e-12).all()
    assert torch.equal(quantise(restored, bits, group)[0], codes)
    assert codes.abs().max() <= 2 ** (bits - 1) - 1


def test_groups_have_scales_of_their_own() -> None:
    weight = torch.cat([torch.full((1, 4), 100.0), torch.full((1, 4), 0.01)], dim=1)
    assert torch.equal(dequantise(*quantise(weight, 4, group=4), 8), weight)
    assert not dequantise(*quantise(weight, 4), 8)[0, 4:].any()


def test_a_row_of_zeros_stays_zero() -> None:
    codes, scale = quantise(torch.zeros(2, 5), 4)
    assert not dequantise(codes, scale, 5).any()


def test_widths_beyond_a_byte_are_refused() -> None:
    with pytest.raises(ValueError, match="2 to 8 bits"):
        quantise(torch.ones(1, 1), 16)


def test_only_linears_of_blocks_change_and_a_second_time_changes_nothing(family: str) -> None:
    model = tiny_model(family)
    before = copy.deepcopy(model.state_dict())
    errors = quantise_rtn(model, 4, group=16)
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {f"{name}.weight" for name in Slots(model).linears()}
    assert all(0.01 < error < 0.2 for error in errors.values())
    once = copy.deepcopy(model.state_dict())
    assert max(quantise_rtn(model, 4, group=16).values()) < 1e-6
    torch.testing.assert_close(dict(model.state_dict()), dict(once))


def test_output_channels_of_transposed_layers_share_no_scale() -> None:
    model = tiny_model("gpt2")
    layer = Slots(model).module(0, "mlp_out")
    with torch.no_grad():
        layer.weight[:, 0].mul_(1000)  # one output channel of Conv1D [in, out]
    quantise_rtn(model, 4)
    assert layer.weight[:, 1:].any()


def test_more_bits_lose_less() -> None:
    errors = {bits: sum(quantise_rtn(tiny_model("llama"), bits).values()) for bits in (2, 4, 6, 8)}
    assert errors[2] > 2 * errors[4] > 4 * errors[6] > 8 * errors[8]


def test_identity_rate_counts_equal_codes(family: str) -> None:
    model = tiny_model(family)
    assert set(identity_rate(model, model, 4).values()) == {1.0}
    moved = copy.deepcopy(model)
    name = Slots(model).linears()[0]
    with torch.no_grad():
        moved.get_submodule(name).weight.neg_()
    rates = identity_rate(model, moved, 4)
    assert rates.pop(name) < 0.25
    assert set(rates.values()) == {1.0}
