"""Projected descent inside a ball."""

import pytest
import torch
from torch.nn import functional

from expunge.lm.descent import descend, least_radius, projected


def test_only_rows_outside_the_ball_are_shortened():
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])
    assert torch.allclose(projected(rows, 1.0), expected)
    assert torch.equal(projected(rows, 0.0), torch.zeros(3, 2))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_linear_readout_flips_where_margin_over_norm_says(seed):
    draw = torch.Generator().manual_seed(seed)
    state = torch.randn(12, generator=draw)
    head = torch.randn(2, 12, generator=draw)
    told = int((head @ state).argmax())
    apart = head[told] - head[1 - told]
    margin = float(apart @ state / apart.norm())

    def slope(delta):
        delta = delta.clone().requires_grad_()
        logits = (state + delta[0]) @ head.T
        loss = functional.cross_entropy(logits[None], torch.tensor([1 - told]))
        return float(loss.detach()), torch.autograd.grad(loss, delta)[0]

    def flips(radius):
        start = torch.zeros(1, 12)
        delta = descend(slope, start, radius=radius, steps=32, step=radius / 8)[0]
        assert delta.norm() <= radius * 1.0001
        return int(((state + delta) @ head.T).argmax()) != told

    assert least_radius(flips, (margin / 2, margin * 2), 9) == pytest.approx(margin, rel=0.01)


def test_the_best_place_seen_is_kept_and_no_step_leaves_the_start():
    def slope(place):  # one step of 1 overshoots the minimum at .4 and lands higher than it began
        return float((place - 0.4).square().sum()), 2 * (place - 0.4)

    start = torch.zeros(1, 1)
    assert torch.equal(descend(slope, start, radius=5.0, steps=1, step=1.0), start)
    assert torch.equal(descend(slope, start, radius=5.0, steps=0, step=1.0), start)
    assert float(descend(slope, start, radius=5.0, steps=4, step=0.1)) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("edge", "found"), [(0.0, 0.0), (0.3, 0.3125), (0.05, 0.0625), (9.0, None)]
)
def test_the_least_radius_is_the_upper_end_of_the_last_gap(edge, found):
    assert least_radius(lambda radius: radius >= edge, (1.0, 0.25, 0.5), 2) == found
