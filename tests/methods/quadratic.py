"""Two quadratic losses as the step of a combiner: everything about them is known by hand.

``L_1 = 0.5 theta^T A theta`` and ``L_2 = 0.5 (theta - 1)^T B (theta - 1)`` in three dimensions.
"""

import torch
from torch import Tensor, nn

from expunge.engine.slots.combine import Gradients

A = torch.tensor([[3.0, 0.5, 0.0], [0.5, 2.0, -0.3], [0.0, -0.3, 1.0]], dtype=torch.float64)
B = torch.tensor([[1.0, -0.2, 0.1], [-0.2, 4.0, 0.4], [0.1, 0.4, 2.0]], dtype=torch.float64)


class Bowls:
    """A step whose forget term is ``sign * L_1`` and whose retain term is ``L_2``."""

    step = 0

    def __init__(self, theta: list[float], sign: float = 1.0) -> None:
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))
        self.parameters = [self.theta]
        self.sign = sign

    def losses(self) -> dict[str, Tensor]:
        off = self.theta - 1
        return {
            "forget": self.sign * 0.5 * self.theta @ A @ self.theta,
            "retain": 0.5 * off @ B @ off,
        }

    def gradients(self) -> Gradients:
        values = {name: float(loss.detach()) for name, loss in self.losses().items()}
        theta = self.theta.detach()
        forget, retain = [self.sign * A @ theta], [B @ (theta - 1)]
        return Gradients(forget, retain, values, self)
