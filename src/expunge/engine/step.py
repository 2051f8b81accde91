"""One step as a method sees it: its views, how far the run is, and a place for state."""

from collections.abc import Mapping
from typing import Any

import numpy

from expunge.engine.view import View


class Step:
    """Named views of the rows of this (micro-)step: ``step.forget``, ``step.retain`` ...

    Attributes:
        progress: Share of the run that is done, 0 to 1.
        rng: Random numbers of this step, a pure function of (seed, step).
        state: The method's own state over the run (saved with every checkpoint).
    """

    def __init__(
        self,
        views: Mapping[str, View],
        *,
        progress: float = 0.0,
        rng: numpy.random.Generator | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        self._views = dict(views)
        self.progress = progress
        self.rng = rng if rng is not None else numpy.random.default_rng(0)
        self.state = state if state is not None else {}

    def __getattr__(self, name: str) -> View:
        try:
            return self.__dict__["_views"][name]  # type: ignore[no-any-return]
        except KeyError:
            known = ", ".join(sorted(self.__dict__.get("_views", {})))
            raise AttributeError(f"this step has no view {name!r} (it has: {known})") from None

    def __contains__(self, name: str) -> bool:
        return name in self._views
