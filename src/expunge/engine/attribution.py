"""What a model would say had it not been trained on some rows, from gradients of its outputs.

Near its weights a model is linear in them, so training on rows S with a small ridge takes it from
f_b, what it said before, to

    f(x; S) = f_b(x) + k(x, S) M (f_0(S) - f_b(S)),    M = (K_SS + lambda I)^-1,  k = phi . phi'

where phi(x) is the gradient of the output on x and f_0 what the trained model says. Taking a row
out of S is then exact algebra. The kernel of sketched gradients stands for that of whole ones: a
sketch adds every coordinate, with a random sign, to one of D numbers (count sketch), which keeps
inner products in the mean.

Reference: TRAK: Attributing Model Behavior at Scale, 2023 (gradient features, one-step datamodels);
Finding frequent items in data streams, 2002 (the sketch).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.core.rng import derive

CHUNK = 1 << 22
"""Coordinates whose buckets are drawn together."""


class Sketch:
    """Random sums of coordinates, the same for every gradient.

    Args:
        size: Numbers a gradient becomes (D).
        seed: Decides buckets and signs.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed

    def __call__(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """[D], float64.

        Args:
            gradients: One tensor a parameter, always in the same order; None is zero.
        """
        total = torch.zeros(self._size, dtype=torch.float64)
        for number, gradient in enumerate(gradients):
            if gradient is not None:
                flat = gradient.detach().reshape(-1).cpu().double()
                for start, buckets, signs in self._parts(number, len(flat)):
                    part = flat[start : start + len(buckets)]
                    total.index_add_(0, buckets, part * signs)
        return total

    def _parts(self, number: int, length: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        for start in range(0, length, CHUNK):
            draw = torch.Generator().manual_seed(derive(self._seed, "sketch", number, start))
            count = min(CHUNK, length - start)
            buckets = torch.randint(self._size, (count,), generator=draw)
            signs = torch.randint(2, (count,), generator=draw).double() * 2 - 1
            yield start, buckets, signs


@dataclass(frozen=True, slots=True)
class Linearised:
    """A model near its weights, as rows that it was trained on explain it.

    Attributes:
        kernel: [N, N] inner products of the rows' features.
        learnt: [N] what training changed of each row's output, f_0 - f_b.
        ridge: lambda, as a share of the kernel's mean diagonal.
    """

    kernel: Tensor
    learnt: Tensor
    ridge: float

    @property
    def penalty(self) -> float:
        """What is added to the kernel's diagonal (lambda)."""
        return self.ridge * float(self.kernel.diagonal().mean())

    def without(self, gone: Sequence[int]) -> Tensor:
        """[N]: f - f_b on every row had the rows ``gone`` not been there, all at once."""
        left = set(gone)
        kept = torch.tensor([at for at in range(len(self.learnt)) if at not in left])
        if not len(kept):
            return torch.zeros_like(self.learnt)
        inner = self.kernel[kept][:, kept] + self.penalty * torch.eye(len(kept)).double()
        weights: Tensor = torch.linalg.solve(inner, self.learnt[kept])
        return self.kernel[:, kept] @ weights

    def contributed(self, rows: Sequence[int]) -> Tensor:
        """[N]: by how much the output on every row falls without ``rows``, all at once."""
        return self.without(()) - self.without(rows)

    def influences(self) -> Tensor:
        """[N, N]: beta_i(x), by how much the output on x (first) falls without row i alone.

        Exact for the linear model (leave one out): beta_i(x) = (k(x, S) M)_i alpha_i / M_ii.
        """
        inverse = self._inverse
        alpha = inverse @ self.learnt
        return (self.kernel @ inverse) * (alpha / inverse.diagonal())

    def one_step(self, confidence: Tensor) -> Tensor:
        """[N, N]: beta_i(x) by one Newton step (TRAK): (k(x, S) M)_i (1 - p_i).

        Args:
            confidence: [N], probability p of each row's answer.
        """
        return (self.kernel @ self._inverse) * (1 - confidence)

    @property
    def _inverse(self) -> Tensor:
        eye = torch.eye(len(self.learnt), dtype=torch.float64)
        inverse: Tensor = torch.linalg.inv(self.kernel + self.penalty * eye)
        return inverse
