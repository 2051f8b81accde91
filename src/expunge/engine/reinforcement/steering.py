"""The warm start: training on refusals until drawn answers refuse now and then.

A model that knows a row by heart never draws anything else, all its draws get the same reward, and
nothing is learnt from them. So it is first taught refusals, gently: training ends as soon as the
wanted share of drawn answers refuses. Where the rate is ``auto`` and the passes are over before
that, they are made again at twice the rate.

Departs from the paper:
    INFERRED: the end by drawn answers, and the doubling. The paper trains a number of steps and
    picks a checkpoint by hand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from expunge.core.events import progress
from expunge.core.families import ReinforcementParams
from expunge.core.rng import derive
from expunge.engine import rates
from expunge.lm.finetune import finetune
from expunge.requests.rows import Row

WARMUP = 20
"""Steps over which the rate rises, at most a tenth of a pass over all epochs."""

FEWEST_STEPS = 24
"""Steps of a round below `rates.FULL_SIZE`, at least."""

ROUNDS = 4
"""How often the passes are made, each time at twice the rate."""

LOOKS = 4
"""How often in a round answers are drawn."""

SHOWN = 16
"""Lessons that are asked then, at most."""

SHOWN_SAMPLES = 4
"""Answers drawn to each of them."""


class _Enough(Exception):
    """Ends a round."""


@dataclass(frozen=True, slots=True)
class Steered:
    """How a warm start went.

    Attributes:
        steps: Optimiser steps of all rounds.
        lr: Rate of the last round.
        refusing: Share of drawn answers that refuse, at its end.
    """

    steps: int
    lr: float
    refusing: float


def steer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    params: ReinforcementParams,
    *,
    parameters: int,
    lr: float,
    seed: int,
    refusing: Callable[[], float],
) -> Steered:
    """Train a model in place on refusals, answer tokens only.

    Args:
        model: What may not move asks for no gradient.
        tokenizer: Its tokenizer.
        rows: Questions with refusals.
        params: Passes, rate and end.
        parameters: Size of the model: a small one needs more steps.
        lr: Rate to begin with, where ``params`` does not say one.
        seed: Of the order of the rows.
        refusing: Share of drawn answers that refuse, now.
    """
    steps = params.steer_epochs * ceil(len(rows) / params.steer_batch_size)
    if parameters < rates.FULL_SIZE:
        steps = max(steps, FEWEST_STEPS)
    is_free = params.steer_lr == "auto"
    first = lr if params.steer_lr == "auto" else float(params.steer_lr)
    done, share = 0, refusing()
    rounds = ROUNDS if is_free else 1
    with progress("steering", rounds * steps) as bar:

        def look(step: int) -> None:
            nonlocal done, share
            done += 1
            bar.advance(1, text=f"{share:.0%} of drawn answers refuse")
            if step % ceil(steps / LOOKS) == 0 or step == steps:
                share = refusing()
                if share >= params.steer_until:
                    raise _Enough

        for number in range(rounds):
            rate = first * 2**number
            try:
                finetune(
                    model,
                    tokenizer,
                    rows,
                    steps=steps,
                    lr=rate,
                    batch_size=params.steer_batch_size,
                    seed=derive(seed, "steer", number),
                    warmup=min(WARMUP / steps, 0.1),
                    betas=(0.9, 0.999),
                    weight_decay=0.0,
                    on_step=look,
                )
            except _Enough:
                break
    return Steered(done, rate, share)
