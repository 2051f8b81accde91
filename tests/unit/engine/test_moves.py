"""The seam by which a method turns what its optimiser made of a step."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.core.families import GradientParams
from expunge.engine.masks import AppliedMask
from expunge.engine.moves import Moves
from expunge.engine.optimiser import MasterAdamW
from expunge.engine.projection import inner, project_out
from expunge.engine.slots.combine import Gradients

Redirect = Any


def rig(
    weight: nn.Parameter, redirect: Redirect, masters: Mapping[nn.Parameter, Tensor] | None = None
) -> Moves:
    """Moves of one weight whose latest step had a retain gradient of (1, 2, 0)."""
    model = nn.Module()
    model.weight = weight
    mask = AppliedMask(model, {})
    mask.masters = masters or {}
    again = SimpleNamespace(parameters=[weight])
    latest = Gradients([torch.zeros(3)], [torch.tensor([1.0, 2.0, 0.0])], {}, again)
    gradient = SimpleNamespace(
        latest=latest,
        method=SimpleNamespace(redirect=redirect, params=GradientParams()),
        task=SimpleNamespace(state={"known": 1}),
    )
    return Moves(gradient, mask)


def at_right_angles(
    moves: Sequence[Tensor], gradients: Gradients, state: dict[str, Any], params: Any
) -> list[Tensor]:
    assert state == {"known": 1}
    return project_out(moves, gradients.retain)


def stepped(redirect: Redirect) -> Tensor:
    """What three steps of Adam with other gradients make of a weight, the last one redirected."""
    weight = nn.Parameter(torch.zeros(3))
    adam, moves = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.1), rig(weight, redirect)
    for gradient in ([3.0, -1.0, 1.0], [0.0, 1.0, 1.0], [2.0, -1.0, 4.0]):
        weight.grad = torch.tensor(gradient)
        before = weight.detach().clone()
        moves.begin()
        adam.step()
        moves.end()
    return weight.detach() - before


def test_a_gradient_at_right_angles_makes_no_such_move_and_a_redirected_move_is_one() -> None:
    """The last gradient, (2, -1, 4), is at right angles to (1, 2, 0)."""
    retain = torch.tensor([1.0, 2.0, 0.0])
    free, turned = stepped(None), stepped(at_right_angles)
    assert abs(inner([free], [retain])) > 0.01
    assert inner([turned], [retain]) == pytest.approx(0.0, abs=1e-7)
    assert float(turned.norm()) > 0.01


def test_masters_are_moved_and_the_weights_follow_them() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 1.0, 1.0], dtype=torch.bfloat16))
    master = weight.detach().float().clone()
    adam = MasterAdamW([{"params": [weight], "lr": 1e-4, "weight_decay": 0.0}], {weight: master})
    moves = rig(weight, at_right_angles, {weight: master})
    for _ in range(3):
        before = master.clone()
        weight.grad = torch.tensor([1.0, -3.0, 2.0], dtype=torch.bfloat16)
        moves.begin()
        adam.step()
        moves.end()
        move = master - before
        assert inner([move], [torch.tensor([1.0, 2.0, 0.0])]) == pytest.approx(0.0, abs=1e-6)
        assert float(move.norm()) > 5e-5  # less than bfloat16 can add to 1
        assert torch.equal(weight, master.to(torch.bfloat16))


def test_a_step_that_combined_nothing_stays_as_it_is() -> None:
    weight = nn.Parameter(torch.zeros(3))
    moves = rig(weight, at_right_angles)
    moves._gradient.latest = None
    moves.begin()
    with torch.no_grad():
        weight.add_(1.0)
    moves.end()
    assert torch.equal(weight.detach(), torch.ones(3))
