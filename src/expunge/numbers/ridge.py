"""Learning in stages, exactly: why the order of training outlives forgetting.

Definition (a stage is rows X [k, d] with targets y [k]; mu > 0; theta starts at 0):
    learn      theta' = argmin |X theta - y|^2 + mu |theta - theta_before|^2
    ascend     theta' = theta + eta grad (1/k) |X theta - y|^2
    D_t        = (I + M)^t D_0,   M = (2 eta / k) X^T X      difference of two models, ascending
    d(a, b)    = (1/m) sum_i (x_i a - x_i b)^2               on m test rows

Ascent on the same rows U multiplies what two models differ by inside the span of U and never
touches what they differ by outside of it: two histories never meet. For t large enough

    d >= sigma^2 |P D_0|^2 / (4 m) (1 + rho)^(2 t)

with P the projection on the span of U, sigma the smallest singular value above 0 of X_test P, rho
the Rayleigh quotient of M on P D_0. Descent on a strictly convex sum over all rows has one end
and forgets its history.

Reference: On the Impossibility of Retrain Equivalence in Machine Unlearning (2025).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from expunge.core.bootstrap import FloatArray


@dataclass(frozen=True, slots=True)
class Stage:
    """Rows of one stage.

    Attributes:
        x: Inputs [k, d].
        y: Targets [k].
    """

    x: FloatArray
    y: FloatArray

    def gradient(self, theta: FloatArray) -> FloatArray:
        """Gradient [d] of the mean squared error."""
        slope: FloatArray = 2 / len(self.y) * self.x.T @ (self.x @ theta - self.y)
        return slope

    def curvature(self, eta: float) -> FloatArray:
        """M [d, d] of a step of size ``eta``."""
        curved: FloatArray = 2 * eta / len(self.y) * self.x.T @ self.x
        return curved


def learned(stages: Sequence[Stage], mu: float) -> FloatArray:
    """The model [d] after these stages, in this order.

    Args:
        stages: At least one.
        mu: How strongly a stage holds on to the model before it, above 0.
    """
    theta: FloatArray = np.zeros(stages[0].x.shape[1])
    for stage in stages:
        normal = stage.x.T @ stage.x + mu * np.eye(len(theta))
        theta = np.linalg.solve(normal, stage.x.T @ stage.y + mu * theta).astype(np.float64)
    return theta


def ascended(theta: FloatArray, forget: Stage, eta: float, steps: int) -> FloatArray:
    """The model after gradient ascent on the rows to forget alone."""
    for _ in range(steps):
        theta = theta + eta * forget.gradient(theta)
    return theta


def descended(
    theta: FloatArray, keep: Stage, forget: Stage, *, mu: float, eta: float, steps: int
) -> FloatArray:
    """The model after descent on retain error minus forget error, plus ``mu |theta|^2``.

    With ``mu`` large enough that the sum is strictly convex it ends in one place, whatever the
    history.
    """
    for _ in range(steps):
        slope = keep.gradient(theta) - forget.gradient(theta) + 2 * mu * theta
        theta = theta - eta * slope
    return theta


def apart(difference: FloatArray, forget: Stage, eta: float, steps: int) -> FloatArray:
    """``D_t`` from ``D_0``, without walking there."""
    growth = np.linalg.matrix_power(np.eye(len(difference)) + forget.curvature(eta), steps)
    grown: FloatArray = growth @ difference
    return grown


def distance(one: FloatArray, other: FloatArray, x: FloatArray) -> float:
    """Retrain-equivalence distance of two models on test rows [m, d]."""
    return float(np.square(x @ (one - other)).mean())


def least_distance(
    difference: FloatArray, forget: Stage, x: FloatArray, eta: float, steps: int
) -> float:
    """The bound under the distance of two ascending models, valid from some step on.

    Args:
        difference: ``D_0`` [d].
        forget: Rows to forget.
        x: Test rows [m, d].
        eta: Step size.
        steps: t.

    Returns:
        0 where the two do not differ inside the span of the rows to forget.
    """
    inside = np.linalg.pinv(forget.x) @ forget.x
    start = inside @ difference
    length = float(start @ start)
    if length == 0:
        return 0.0
    singular = np.linalg.svd(x @ inside, compute_uv=False)
    smallest = singular[singular > singular.max() * 1e-12].min()
    rho = float(start @ forget.curvature(eta) @ start) / length
    return float(smallest**2 * length / (4 * len(x)) * (1 + rho) ** (2 * steps))
