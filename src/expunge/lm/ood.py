"""Whether a text is like some known ones: scores of hidden states, and the weight they lead to.

Definition (e_i: vector of layer i; C_i: Ledoit-Wolf covariance of the known vectors, m_i their
mean; F: the mixture of two normal distributions with the means mu1, mu2 and one deviation sd):
    cosine_i(x)   = max_j cos( e_i(x), e_i(x_j) )                         j over the known texts
    distance_i(x) = ( e_i(x) - m_i )^T C_i^-1 ( e_i(x) - m_i )
    C             = (1 - a) S + a tr(S)/d I,      S the covariance, a as Ledoit and Wolf have it
    separator     = argmin_{w, rho, xi >= 0}  |w|^2/2 - rho + sum_j xi_j / (nu n)
                    with w . s_j >= rho - xi_j                            g(x) = w . s(x) - rho
    q(g) = 1 - max( F(g), F(2 x0 - g) ) + min( F(g), F(2 x0 - g) ),       x0 = (mu1 + mu2) / 2
    w(g) = sigmoid( 10 q(g) - 2 )

Reference: On Large Language Model Continual Unlearning, 2024; A Well-Conditioned Estimator for
Large-Dimensional Covariance Matrices, 2004; Estimating the Support of a High-Dimensional
Distribution, 2001.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import nnls
from torch import Tensor

Array = npt.NDArray[np.float64]

LEAST_SHRINKAGE = 1e-3
"""Of a covariance: of two points Ledoit and Wolf shrink nothing, and their covariance has no
inverse (INFERRED)."""

LEAST_VARIANCE = 1e-4
"""Where the known points do not differ at all: variance as a share of their mean square."""

CLOSE = 1e-12
"""Relative gap at which the separator counts as found."""


def shrinkage(points: Tensor) -> float:
    """How far Ledoit and Wolf move a covariance towards a multiple of the identity.

    Args:
        points: [n, d], of any mean.
    """
    x = (points - points.mean(0)).double()
    n, d = x.shape
    gram = x @ x.T
    mean = float(gram.trace()) / n / d
    square = float(gram.square().sum()) / n**2
    spread = square / d - mean**2
    error = (float(gram.diagonal().square().sum()) / n - square) / (n * d)
    return min(1.0, error / spread) if spread > 0 and error > 0 else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What known texts look like, layer by layer; n texts of width d in L layers.

    Attributes:
        bank: [L, n, d], their vectors at length 1.
        mean: [L, d].
        basis: [L, r, d], directions in which they differ.
        variances: [L, r], of the covariance in those directions.
        rest: [L], in all others.
    """

    bank: Tensor
    mean: Tensor
    basis: Tensor
    variances: Tensor
    rest: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> Self:
        """From the vectors [n, L, d] of the known texts."""
        layers = [_normal(layer) for layer in vectors.double().unbind(1)]
        mean, basis, variances, rest = (torch.stack(parts) for parts in zip(*layers, strict=True))
        found = (_unit(vectors.double()).transpose(0, 1), mean, basis, variances, rest)
        return cls(*(part.float().contiguous() for part in found))

    def cosines(self, vectors: Tensor) -> Tensor:
        """[B, L], cosine with the nearest known text, of vectors [B, L, d]."""
        units = _unit(vectors.float()).transpose(0, 1)
        return (units @ self.bank.transpose(1, 2)).amax(-1).T

    def distances(self, vectors: Tensor) -> Tensor:
        """[B, L], squared Mahalanobis distance to the known texts, of vectors [B, L, d]."""
        away = (vectors.float() - self.mean).transpose(0, 1)
        along = away @ self.basis.transpose(1, 2)
        beside = away - along @ self.basis
        inside = (along.square() / self.variances[:, None]).sum(-1)
        return (inside + beside.square().sum(-1) / self.rest[:, None]).T

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # nothing changes it

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], device: torch.device) -> Self:
        """What `tensors` gave, on a device."""
        return cls(*(tensors[one.name].to(device) for one in fields(cls)))


def _normal(points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, directions, variances in them and elsewhere, of points [n, d]."""
    n, d = points.shape
    mean = points.mean(0)
    away = points - mean
    if n > d:
        own, vectors = torch.linalg.eigh(away.T @ away / n)
        own, directions = own.clamp(min=0), vectors.T
    else:
        _, lengths, directions = torch.linalg.svd(away, full_matrices=False)
        own = lengths.square() / n
    kept = max(LEAST_SHRINKAGE, shrinkage(points))
    floor = LEAST_VARIANCE * float(points.square().mean()) + torch.finfo(torch.float32).tiny
    rest = (kept * own.sum() / d).clamp(min=floor)
    return mean, directions, ((1 - kept) * own + rest), rest


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


@dataclass(frozen=True, slots=True)
class Separator:
    """A one-class support vector machine with a linear kernel.

    Attributes:
        weight: [k], w.
        offset: rho.
        shares: [n], the dual variables of the points it was fitted to; they sum to 1.
    """

    weight: Array
    offset: float
    shares: Array


def separated(points: Array, nu: float) -> Separator:
    """Separate points [n, k] from the origin; about a share ``nu`` of them is left behind.

    w is the shortest vector of all means in which no point has more than 1 / (nu n). The means that
    matter are found one by one: the one that reaches least far along the shortest vector so far.
    """
    size = float(np.sqrt(np.square(points).mean())) or 1.0
    x = points / size
    vertices = [_lowest(x @ x.mean(0), nu)]
    while True:
        means = np.stack(vertices) @ x
        system = np.vstack([means.T, np.ones(len(means))])
        parts, _ = nnls(system, np.append(np.zeros(x.shape[1]), 1.0), maxiter=100 * len(means))
        shares = (parts / parts.sum()) @ np.stack(vertices)
        w = shares @ x
        nearest = _lowest(x @ w, nu)
        gap = w @ w - nearest @ x @ w
        is_known = any(np.array_equal(nearest, vertex) for vertex in vertices)
        if is_known or gap <= CLOSE * max(1.0, w @ w):
            return Separator(w * size, _edge(x @ w, nu) * size**2, shares)
        vertices.append(nearest)


def _lowest(values: Array, nu: float) -> Array:
    """[n], shares of the points whose values are lowest: as much as is allowed for each."""
    most = 1 / (nu * len(values))
    shares = np.zeros(len(values))
    left = 1.0
    for place in np.argsort(values, kind="stable"):
        shares[place] = min(most, left)
        left -= shares[place]
        if left <= 0:
            break
    return shares


def _edge(values: Array, nu: float) -> float:
    """The value up to which a share ``nu`` of the points lies."""
    ranked = np.sort(values)
    place = int(np.ceil(nu * len(values) - 1e-9)) - 1
    return float(ranked[min(max(place, 0), len(ranked) - 1)])


@dataclass(frozen=True, slots=True)
class Mixture:
    """Two normal distributions of the same deviation, half of everything in each.

    Attributes:
        mu1: Mean of one: scores of the known texts.
        mu2: Mean of the other: scores of texts like them.
        sd: Deviation of both: that of the second.
    """

    mu1: float
    mu2: float
    sd: float

    @property
    def centre(self) -> float:
        """x0, halfway between the means."""
        return (self.mu1 + self.mu2) / 2

    def below(self, score: Tensor) -> Tensor:
        """F: the share of the mixture below a score."""
        at = score.double()
        first, second = ((at - mu) / self.sd for mu in (self.mu1, self.mu2))
        found: Tensor = (torch.special.ndtr(first) + torch.special.ndtr(second)) / 2
        return found

    def typical(self, score: Tensor) -> Tensor:
        """q: 1 in the middle, 0 far off on either side."""
        here, mirrored = self.below(score), self.below(2 * self.centre - score.double())
        return 1 - torch.maximum(here, mirrored) + torch.minimum(here, mirrored)

    def weight(self, score: Tensor) -> Tensor:
        """w, from sigmoid(-2) = .12 far off to sigmoid(8) in the middle."""
        return torch.sigmoid(10 * self.typical(score) - 2)


def clamped(weight: Tensor, low: float, high: float) -> Tensor:
    """Weights with an end to their range: 0 up to ``low`` and 1 above ``high``."""
    ended = torch.where(weight > high, 1.0, weight)
    return torch.where(weight <= low, 0.0, ended)


def hardened(weight: Tensor) -> Tensor:
    """The table of the released evaluation: 1.2 above .9; as it is in (.3, .4]; else 0."""
    kept = torch.where((weight > 0.3) & (weight <= 0.4), weight, 0.0)
    return torch.where(weight > 0.9, 1.2, kept)
