import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.lm.digest import tensors_digest
from expunge.lm.patch import apply_xor, xor


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_patch_goes_both_ways_bit_for_bit(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    parent = {
        "w": torch.randn(5, 3, generator=generator).to(dtype),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 0.0], dtype=dtype),
        "one": torch.tensor(2.0, dtype=dtype),
        "same": torch.ones(4, dtype=dtype),
        "n": torch.arange(3),
    }
    child = {
        **parent,
        "w": parent["w"] + torch.tensor(1e-3, dtype=dtype),
        "odd": parent["odd"].flip(0),
        "one": parent["one"] * 3,
    }
    patch = xor(parent, child)
    assert set(patch) == {"w", "odd", "one"}
    assert not any(bits.is_floating_point() for bits in patch.values())
    assert tensors_digest(apply_xor(child, patch)) == tensors_digest(parent)
    assert tensors_digest(apply_xor(parent, patch)) == tensors_digest(child)
    assert tensors_digest(parent) != tensors_digest(child)


def test_transposed_memory_makes_no_difference() -> None:
    a, b = torch.randn(4, 3), torch.randn(3, 4).T
    assert torch.equal(apply_xor({"w": a}, xor({"w": a}, {"w": b}))["w"], b)


def test_a_patch_of_other_weights_is_refused() -> None:
    a, b = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    for broken in ({}, {"w": torch.zeros(3)}, {"w": torch.zeros(2, dtype=torch.float16)}):
        with pytest.raises(ExpungeError) as caught:
            xor(a, broken)
        assert caught.value.code == "E-MODEL-009"
    patch = xor(a, b)
    for other in ({"v": torch.zeros(2)}, {"w": torch.zeros(2).double()}):
        with pytest.raises(ExpungeError):
            apply_xor(other, patch)
