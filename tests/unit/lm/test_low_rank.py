"""Low-rank matrices beside linears, and dropout that is a function of names."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from expunge.lm.low_rank import Dropout, LowRank, hashed, overlap, position_keys


def test_the_card_s_overlap() -> None:
    """A_s = [1, 0] and A = [a, b]: a^2, with the gradient (2a, 0)."""
    a = torch.tensor([[3.0, 5.0]], requires_grad=True)
    found = overlap(a, torch.tensor([[1.0, 0.0]]))
    found.backward()
    assert found.item() == 9
    assert a.grad is not None
    assert a.grad.tolist() == [[6, 0]]


def test_overlap_is_the_squared_norm_of_the_product() -> None:
    draw = torch.Generator().manual_seed(0)
    a, earlier = torch.randn(3, 7, generator=draw), torch.randn(2, 7, generator=draw)
    assert overlap(a, earlier).item() == pytest.approx(((earlier @ a.T) ** 2).sum().item())


@pytest.mark.parametrize("module", [nn.Linear(6, 4), Conv1D(4, 6)])
def test_it_says_nothing_at_first_then_scale_b_a(module: nn.Module) -> None:
    part = LowRank.new(module, 2, 16.0, 0, 0, "test")
    x = torch.randn(3, 5, 6)
    assert not part(x).any()
    assert float(part.a.detach().abs().max()) <= 6**-0.5
    with torch.no_grad():
        part.b.normal_()
    torch.testing.assert_close(part(x), 8 * x @ part.a.T @ part.b.T)
    assert part(x.bfloat16()).dtype == torch.float32
    part.check_fits(module)
    with pytest.raises(ValueError, match="low-rank"):
        part.check_fits(nn.Linear(4, 6))


def test_hashes_are_those_of_splitmix() -> None:
    """The first numbers of the reference implementation for the seeds 0 and 1."""
    found = [one % (1 << 64) for one in hashed(torch.tensor([0, 1])).tolist()]
    assert found == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1]


def test_as_many_are_dropped_as_asked_and_the_rest_makes_up_for_them() -> None:
    keys = position_keys(torch.arange(50), 40, 3, 4)
    out = Dropout(keys, 0.2)(torch.ones(50, 40, 30), 1)
    dropped = float((out == 0).double().mean())
    assert dropped == pytest.approx(0.2, abs=0.005)
    assert out.max().item() == pytest.approx(1.25)
    for dim in (0, 1, 2):  # nowhere in a pattern
        others = tuple(d for d in range(3) if d != dim)
        assert float((out == 0).double().mean(others).std()) < 0.03


def test_what_is_dropped_hangs_on_names_alone() -> None:
    rows, x = torch.tensor([4, 9, 2]), torch.ones(3, 6, 8)
    whole = Dropout(position_keys(rows, 6, 3, 4), 0.5)(x, 1)
    part = Dropout(position_keys(rows[1:2], 5, 3, 4), 0.5)(x[1:2, :5], 1)
    assert torch.equal(whole[1:2, :5], part)
    for names, layer in (((3, 5), 1), ((2, 4), 1), ((3, 4), 2)):
        assert not torch.equal(Dropout(position_keys(rows, 6, *names), 0.5)(x, layer), whole)
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole[:, 0], whole[:, 1])
