"""Stop rules: when a run is over before its last step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expunge.core.families import GradientParams


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured at one point of the run.

    Attributes:
        step: Optimiser steps done.
        forget_nll: Token-mean negative log-likelihood of the forget rows, nats.
        is_level: Whether the forget rows are at the stop level.
        terms: Values of the terms at that step.
        guessing: What a guess among all tokens costs: ln V, nats a token.
        utility_drop: Relative fall of greedy accuracy on retain rows; None where no budget is
            watched.
        is_spent: Whether that uses up the utility budget, but for a margin.
    """

    step: int
    forget_nll: float
    is_level: bool
    terms: dict[str, float]
    guessing: float
    utility_drop: float | None = None
    is_spent: bool = False


def never(history: Sequence[Measured], params: GradientParams) -> bool:
    """The default: the number of steps (and the level of ``--stop-at``) end the run."""
    return False


def at_guess(history: Sequence[Measured], params: Any) -> bool:
    """Whether the forget rows cost ``max_forget_nll`` nats a token: that of a guess for ``auto``.

    Without a limit (None) never.
    """
    now, limit = history[-1], params.max_forget_nll
    reached = now.guessing if limit == "auto" else limit
    return reached is not None and now.forget_nll >= reached


SHARED = {"never": never, "guess": at_guess}
