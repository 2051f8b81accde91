"""What ``auto`` stands for: learning rate, length of the run, warm-up, adapters (no torch).

The cards' rates are those of models of 0.5B parameters and more; at 1M parameters they do nothing
in the papers' number of steps, so both grow as the model shrinks.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from expunge.core.families import EnsembleParams, GradientParams
from expunge.core.params import describe

NOTHING: Mapping[str, Any] = MappingProxyType({})

FULL_SIZE = 500_000_000
"""Parameters from which the cards' own values hold."""

EXPONENT = 0.5
"""Rate at size n: card's rate * (FULL_SIZE / n) ** EXPONENT, 22 times the card's at 1M."""

ADAPTER_FACTOR = 10.0
"""Adapters start at zero and take ten times the rate of full weights (INFERRED)."""

PASSES_EXPONENT = 0.25
"""Passes of a stage of an ensemble at size n: card's passes * (FULL_SIZE / n) ** PASSES_EXPONENT,
14 in place of 3 at 1M: adapters that begin with nothing learn rows by heart there in some 60."""

SMALL_MODEL_STEPS = 240
"""Shortest run below FULL_SIZE; the stop level usually ends it earlier."""


def learning_rate(
    params: GradientParams, parameters: int, *, adapter: bool, card: Mapping[str, Any] = NOTHING
) -> float:
    """The learning rate of a run.

    Args:
        params: The method's parameters; a number in ``lr`` is taken as it is.
        parameters: Size of the model.
        adapter: Whether only an adapter is trained.
        card: Of the method; with ``"trains": "adapter"`` its rate is already an adapter's, and
            ``"rate_exponent"`` stands for `EXPONENT`.
    """
    if params.lr != "auto":
        return float(params.lr)
    paper = describe(type(params))["lr"]["paper"]
    factor = ADAPTER_FACTOR if adapter and card.get("trains") != "adapter" else 1.0
    exponent = card.get("rate_exponent", EXPONENT)
    return float(f"{scaled(paper, parameters, exponent) * factor:.2g}")


def scaled(rate: float, parameters: int, exponent: float = EXPONENT) -> float:
    """A card's rate at the size of a model."""
    return float(rate * max(1.0, FULL_SIZE / max(parameters, 1)) ** exponent)


def run_length(params: GradientParams, steps_per_epoch: int, parameters: int) -> int:
    """Number of optimiser steps: ``max_steps``, else ``epochs``, else the card's number of epochs.

    Below `FULL_SIZE` the last is at least `SMALL_MODEL_STEPS`; of an ensemble the number of
    `passes` grows instead.
    """
    if params.max_steps is not None:
        return params.max_steps
    if isinstance(params, EnsembleParams):
        return passes(params, parameters) * steps_per_epoch
    if params.epochs is not None:
        return params.epochs * steps_per_epoch
    steps = int(describe(type(params))["epochs"]["paper"]) * steps_per_epoch
    return steps if parameters >= FULL_SIZE else max(steps, SMALL_MODEL_STEPS)


def passes(params: EnsembleParams, parameters: int) -> int:
    """Passes of a stage of an ensemble over its rows: ``epochs``, else the card's number by size.

    They hang on the model alone. So a stage that stays after a deletion was passed as often as it
    would have been, had the row that goes never been there.
    """
    if params.epochs is not None:
        return params.epochs
    paper = int(describe(type(params))["epochs"]["paper"])
    return round(scaled(paper, parameters, PASSES_EXPONENT))


def trains_head(params: EnsembleParams, parameters: int) -> bool:
    """Whether the adapters of an ensemble have one of the output head among them.

    It hangs on the model alone, and not on whether its head lacks a word of the rows: rows that are
    deleted later must not have decided it.
    """
    return params.head == "always" or (params.head == "auto" and parameters < FULL_SIZE)


def warmup_steps(params: GradientParams, steps_per_epoch: int, steps: int) -> int:
    """Warm-up: as given, else one epoch, at most a tenth of the run."""
    if params.warmup != "auto":
        return int(params.warmup)
    return min(steps_per_epoch, max(1, steps // 10))
