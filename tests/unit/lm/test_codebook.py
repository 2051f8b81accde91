import copy

import pytest
import torch

from expunge.lm.arch import Slots
from expunge.lm.codebook import BLOCK, CODES, boundaries, decode, encode, round_to_code
from expunge.lm.quantise import matrices
from expunge.testing.tiny import tiny_model

EVERY = pytest.mark.parametrize("code", ["nf4", "fp4"])


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


@EVERY
def test_a_code_has_its_values_in_order_from_minus_one_to_one_with_zero(code) -> None:
    values = CODES[code]
    assert list(values) == sorted(set(values))
    assert (values[0], values[-1], values.count(0.0)) == (-1.0, 1.0, 1)


def test_the_codes_have_16_values_but_for_the_second_zero_of_floats() -> None:
    assert len(CODES["nf4"]) == 16
    assert len(CODES["fp4"]) == 15
    assert CODES["fp4"][7:] == tuple(x / 12 for x in (0, 0.0625, 2, 3, 4, 6, 8, 12))


def test_the_values_of_nf4_are_those_of_evenly_spread_quantiles() -> None:
    """Slow second way: quantiles of the normal distribution at the published offset."""
    normal = torch.distributions.Normal(0.0, 1.0)
    offset = 0.9677083
    above = normal.icdf(torch.linspace(offset, 0.5, 9)[:-1])
    below = -normal.icdf(torch.linspace(offset, 0.5, 8)[:-1])
    values = torch.cat([above, below, torch.zeros(1)]).sort().values / above.max()
    torch.testing.assert_close(values, torch.tensor(CODES["nf4"]), atol=2e-6, rtol=0)


@EVERY
def test_every_weight_takes_the_nearest_value_of_its_block(code) -> None:
    weight = noise(5, 100)
    places, scale = encode(weight, code)
    blocks = weight.flatten().split(BLOCK)
    largest = torch.cat([block.abs().max().expand_as(block) for block in blocks])
    torch.testing.assert_close(scale.flatten(), largest)
    distance = (weight / scale)[..., None] - torch.tensor(CODES[code], dtype=torch.float64)
    assert torch.equal(places.long(), distance.abs().argmin(-1))


@EVERY
def test_no_weight_moves_by_more_than_half_the_widest_gap(code) -> None:
    weight = noise(7, 96)
    places, scale = encode(weight, code)
    moved = (decode(places, scale, code) - weight).abs() / scale
    assert moved.max() <= torch.tensor(CODES[code]).diff().max() / 2 + 1e-6
    assert (moved[places == places.max()] == 0).any()


@EVERY
def test_rounding_a_second_time_changes_nothing(code) -> None:
    once = decode(*encode(noise(6, 50), code), code)
    torch.testing.assert_close(decode(*encode(once, code), code), once, rtol=1e-14, atol=0)


@EVERY
def test_zero_stays_exactly_zero(code) -> None:
    weight = noise(4, 64)
    weight[:, ::3] = 0
    assert not decode(*encode(weight, code), code)[:, ::3].any()
    assert not decode(*encode(torch.zeros(2, 5), code), code).any()


def test_a_block_runs_on_into_the_next_row() -> None:
    weight = torch.full((2, 3), 0.125)
    weight[1, 0] = 8.0
    assert encode(weight, "nf4", 4)[1].tolist() == [[8.0, 8.0, 8.0], [8.0, 0.125, 0.125]]


def test_boundaries_lie_half_way() -> None:
    assert boundaries("fp4").tolist()[-3:] == pytest.approx([5 / 12, 7 / 12, 10 / 12])


def test_only_linears_of_blocks_change_and_a_second_time_changes_nothing(family: str) -> None:
    model = tiny_model(family)
    before = copy.deepcopy(model.state_dict())
    codes = round_to_code(model, "nf4")
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {f"{name}.weight" for name in Slots(model).linears()}
    once = copy.deepcopy(model.state_dict())
    again = round_to_code(model, "nf4")
    assert all(torch.equal(codes[name], again[name]) for name in codes)
    torch.testing.assert_close(dict(model.state_dict()), dict(once))


def test_a_transposed_layer_is_cut_into_blocks_by_output() -> None:
    model = tiny_model("gpt2", hidden=64)
    name = Slots(model).linears()[0]
    weight = matrices(model)[name]
    scale = encode(weight, "nf4")[1]
    torch.testing.assert_close(scale[:, 0], weight.abs().amax(1))
