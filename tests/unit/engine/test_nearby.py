"""Weights moved for a moment, and curvature from gradients on either side."""

import pytest
import torch
from torch import nn

from expunge.engine.nearby import derivative, hessian_product, move, shifted


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((30, 2), (4,))
    return [nn.Parameter(torch.randn(s, generator=draw, dtype=dtype)) for s in shapes]


def along(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(p.shape, generator=draw, dtype=dtype) for p in parameters()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_bit_for_bit_where_subtraction_would_not(dtype: torch.dtype) -> None:
    held, direction = parameters(dtype), along(dtype)
    before = [p.detach().clone() for p in held]
    with shifted(held, direction, 0.3):
        for p, start, step in zip(held, before, direction, strict=True):
            assert torch.equal(p, start.clone().add_(step, alpha=0.3))
            assert not torch.equal(p, start)
    assert all(torch.equal(p, start) for p, start in zip(held, before, strict=True))
    subtracted = [start.clone() for start in before]
    for value, step in zip(subtracted, direction, strict=True):
        value.add_(step, alpha=0.3).sub_(step, alpha=0.3)
    assert not all(torch.equal(v, start) for v, start in zip(subtracted, before, strict=True))


def test_they_come_back_when_something_breaks() -> None:
    held = parameters()
    before = [p.detach().clone() for p in held]
    with pytest.raises(ZeroDivisionError), shifted(held, along(), 1.0):
        raise ZeroDivisionError
    assert all(torch.equal(p, start) for p, start in zip(held, before, strict=True))


def test_a_move_stays() -> None:
    held = parameters()
    before = [p.detach().clone() for p in held]
    move(held, along(), -2.0)
    for p, start, step in zip(held, before, along(), strict=True):
        torch.testing.assert_close(p.detach(), start - 2 * step)


def loss_of(held: list[nn.Parameter]) -> torch.Tensor:
    first, second = held
    return (first**3).sum() + (first.sum() * second).sin().sum()


def test_the_difference_of_gradients_is_the_product_with_the_hessian() -> None:
    held, direction = parameters(), along()
    slopes = derivative(loss_of(held), held, graph=True)
    product = torch.stack([(s * v).sum() for s, v in zip(slopes, direction, strict=True)]).sum()
    exact = derivative(product, held, graph=False)
    found = hessian_product(
        held, direction, lambda: derivative(loss_of(held), held, graph=False), 1e-4
    )
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    longer = hessian_product(
        held, [5 * v for v in direction], lambda: derivative(loss_of(held), held, graph=False), 1e-4
    )
    for one, other in zip(longer, exact, strict=True):
        torch.testing.assert_close(one, 5 * other, rtol=1e-5, atol=1e-6)


def test_along_nothing_there_is_no_curvature_and_nobody_is_asked() -> None:
    held = parameters()
    found = hessian_product(held, [torch.zeros_like(p) for p in held], lambda: 1 / 0, 1e-4)
    assert not any(part.any() for part in found)


def test_what_has_no_part_in_a_scalar_has_no_slope() -> None:
    first, second = held = parameters()
    slopes = derivative((first**2).sum(), held, graph=False)
    torch.testing.assert_close(slopes[0], 2 * first.detach())
    assert not slopes[1].any()
    assert slopes[1].shape == second.shape
    assert not any(part.any() for part in derivative(torch.tensor(3.0), held, graph=True))
