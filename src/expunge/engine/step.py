"""One step as a method sees it: its views, how far the run is, and a place for state."""

from collections.abc import Mapping
from typing import Any

import numpy
from torch import Tensor

from expunge.engine.mean import Mean
from expunge.engine.view import View


class Step:
    """Named views of the rows of this (micro-)step: ``step.forget``, ``step.retain`` ...

    Attributes:
        progress: Share of the run that is done, 0 to 1.
        rng: Random numbers of this step, a pure function of (seed, step).
        state: The method's own state over the run (saved with every checkpoint).
        reported: Numbers that terms told of themselves, by name.
        tensors: What of the state are tensors, likewise.
        index: Number of the step, from 0.
    """

    def __init__(
        self,
        views: Mapping[str, View],
        *,
        progress: float = 0.0,
        rng: numpy.random.Generator | None = None,
        state: dict[str, Any] | None = None,
        reported: dict[str, Mean] | None = None,
        tensors: dict[str, Tensor] | None = None,
        index: int = 0,
    ) -> None:
        self._views = dict(views)
        self.progress = progress
        self.rng = rng if rng is not None else numpy.random.default_rng(0)
        self.state = state if state is not None else {}
        self.reported = reported if reported is not None else {}
        self.tensors = tensors if tensors is not None else {}
        self.index = index

    def report(self, name: str, mean: Mean) -> None:
        """Tell a number beside the loss; it stands in the history of the run under ``name``.

        Args:
            name: How it is called.
            mean: Pooled over micro-batches and processes like a term; no gradient is taken.
        """
        known = self.reported.get(name)
        told = Mean(mean.num.detach(), mean.den.detach())
        self.reported[name] = told if known is None else known + told

    def __getattr__(self, name: str) -> View:
        try:
            return self.__dict__["_views"][name]  # type: ignore[no-any-return]
        except KeyError:
            known = ", ".join(sorted(self.__dict__.get("_views", {})))
            raise AttributeError(f"this step has no view {name!r} (it has: {known})") from None

    def __contains__(self, name: str) -> bool:
        return name in self._views
