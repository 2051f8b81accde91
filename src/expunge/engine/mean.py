"""A mean that remembers its numerator and denominator, so that any cut of a batch is exact."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mean:
    """``num / den``, kept apart.

    A batch cut into micro-batches, or spread over processes, has one denominator: the sum of the
    parts'. Dividing part by part and averaging would weight short parts too much.

    Attributes:
        num: Scalar, differentiable.
        den: Scalar count (or sum of weights).
    """

    num: Tensor
    den: Tensor

    @property
    def value(self) -> Tensor:
        """The mean itself; 0 over nothing."""
        return self.num / self.den.clamp(min=torch.finfo(self.den.dtype).tiny)

    def __add__(self, other: Self) -> Self:
        """Pool two means: the mean over the union of what both count."""
        return type(self)(self.num + other.num, self.den + other.den)

    def __neg__(self) -> Self:
        return type(self)(-self.num, self.den)

    def __mul__(self, factor: float) -> Self:
        return type(self)(self.num * factor, self.den)

    __rmul__ = __mul__


def mean_of(values: Tensor, weights: Tensor | None = None) -> Mean:
    """The mean over every element of ``values``: rows when given [B], tokens when given [N].

    Args:
        values: Any shape, differentiable.
        weights: Same shape; each element counts that much. None counts every element once.

    Returns:
        The weighted mean; the denominator is the number of elements or the sum of weights.
    """
    if weights is None:
        return Mean(values.sum(), values.new_tensor(float(values.numel())))
    return Mean((weights * values).sum(), weights.sum())
