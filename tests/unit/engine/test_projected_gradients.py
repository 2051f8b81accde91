"""Inner products over all parameters, and what is left at right angles."""

import math

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

from expunge.engine import projection
from expunge.engine.projection import (
    coefficient,
    cosine,
    cosine_slopes,
    grad_cos,
    inner,
    length,
    project_out,
)


def parts(*values: list[float]) -> list[torch.Tensor]:
    return [torch.tensor(part, dtype=torch.float64) for part in values]


def random_parts(seed: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw, dtype=dtype) for shape in ((3, 4), (5,), (1, 2, 2))]


def test_products_run_over_all_parameters() -> None:
    one, other = parts([3.0], [4.0]), parts([1.0], [0.5])
    assert inner(one, other) == 5.0
    assert length(one) == 5.0
    assert coefficient(other, one) == pytest.approx(0.2)
    assert grad_cos(one, parts([4.0], [-3.0])) == 0.0
    assert grad_cos(one, parts([6.0], [8.0])) == pytest.approx(1.0)


def test_they_are_exact_where_float32_is_not() -> None:
    """A large part that cancels over the parameters, and a small one that stays."""
    one = [torch.tensor([1e4, 1.0]), torch.tensor([1e4])]
    other = [torch.tensor([1e4, 1e-3]), torch.tensor([-1e4])]
    assert inner(one, other) == pytest.approx(1e-3, rel=1e-4)
    assert float((one[0] @ other[0]) + (one[1] @ other[1])) != pytest.approx(1e-3, rel=1e-2)


def test_bfloat16_is_widened_before_it_is_multiplied() -> None:
    one, other = random_parts(1, torch.bfloat16), random_parts(2, torch.bfloat16)
    wide = sum(float((a.double() * b.double()).sum()) for a, b in zip(one, other, strict=True))
    assert inner(one, other) == pytest.approx(wide, rel=1e-12)


def test_pieces_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = random_parts(1), random_parts(2)
    whole = inner(one, other)
    monkeypatch.setattr(projection, "PIECE", 3)
    assert inner(one, other) == pytest.approx(whole, rel=1e-14)


def test_what_is_left_is_at_right_angles_and_the_rest_is_parallel() -> None:
    gradient, along = random_parts(1), random_parts(2)
    left = project_out(gradient, along)
    assert abs(inner(left, along)) < 1e-12 * length(gradient) * length(along)
    taken = [g - k for g, k in zip(gradient, left, strict=True)]
    assert abs(grad_cos(taken, along)) == pytest.approx(1.0)


def test_without_a_direction_nothing_is_taken_away() -> None:
    gradient = random_parts(1)
    for size in (0.0, 0.9e-12):
        unit = [torch.zeros_like(g) for g in gradient]
        unit[0][0, 0] = size
        assert coefficient(gradient, unit) == 0.0
        assert grad_cos(gradient, unit) == 0.0
        for left, before in zip(project_out(gradient, unit), gradient, strict=True):
            assert torch.equal(left, before)
    unit[0][0, 0] = 1.1e-12
    assert coefficient(gradient, unit) != 0.0


def test_the_cosine_with_a_graph_has_the_slopes_that_are_given_by_formula() -> None:
    one = [part.requires_grad_() for part in random_parts(1)]
    other = [part.requires_grad_() for part in random_parts(2)]
    value = cosine(one, other)
    assert float(value.detach()) == pytest.approx(grad_cos(one, other), rel=1e-12)
    by_graph = torch.autograd.grad(value, [*one, *other])
    first, second = cosine_slopes([p.detach() for p in one], [p.detach() for p in other])
    for found, expected in zip([*first, *second], by_graph, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    angle = math.acos(float(value.detach()))
    assert length(first) == pytest.approx(math.sin(angle) / length(one))


def test_the_cosine_of_nothing_is_0_and_flat() -> None:
    one, nothing = parts([1.0, 2.0]), parts([0.0, 0.0])
    held = [part.requires_grad_() for part in one]
    assert float(cosine(held, nothing)) == 0.0
    assert all(not part.any() for side in cosine_slopes(one, nothing) for part in side)


def test_shards_are_summed_before_they_are_numbers(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """One process that holds all shards: the products are those of the whole tensors."""
    meeting = tmp_path_factory.mktemp("group") / "meeting"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        one, other = random_parts(1), random_parts(2)
        shards = [[distribute_tensor(p, mesh) for p in side] for side in (one, other)]
        assert inner(*shards) == pytest.approx(inner(one, other), rel=1e-14)
        left = project_out(*shards)
        for found, expected in zip(left, project_out(one, other), strict=True):
            torch.testing.assert_close(found.full_tensor(), expected)
    finally:
        dist.destroy_process_group()
