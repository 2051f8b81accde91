"""What a run of draws and rewards will do, counted, for `expunge.engine.estimate`."""

from collections.abc import Sequence
from math import ceil

from expunge.core.families import ReinforcementParams
from expunge.data.encode import Encoded
from expunge.engine.counts import Pass
from expunge.engine.reinforcement.lessons import answer_length
from expunge.engine.reinforcement.steering import FEWEST_STEPS, LOOKS, ROUNDS, SHOWN, SHOWN_SAMPLES

BACKWARD = 3
"""Forward passes that a step with a gradient costs."""


def rollouts(
    items: Sequence[Encoded], params: ReinforcementParams, steps: int, positions: int
) -> tuple[Pass, list[Pass]]:
    """The training passes, and those without gradient: the draws and what the reference says.

    Args:
        items: The rows that are asked.
        params: The method's parameters.
        steps: Optimiser steps.
        positions: Of the model.

    Returns:
        What a step trains on; what is only passed, over the whole run. Draws are counted at full
        length: most end earlier.
    """
    asked, said = _lengths(items, params, positions)
    rows = params.batch_size * params.accumulation * params.num_generations
    tokens, supervised = rows * (asked + said), rows * said
    drawn = Pass(steps, tokens, supervised, said + 1)
    compared = [Pass(steps, tokens, supervised, params.accumulation)] if params.beta else []
    return Pass(steps, tokens, supervised, params.accumulation), [drawn, *compared]


def steering(
    items: Sequence[Encoded], params: ReinforcementParams, known: int, positions: int
) -> list[Pass]:
    """The warm start at its longest, as passes without gradient.

    Args:
        items: The rows that are asked.
        params: The method's parameters.
        known: Refusals trained on.
        positions: Of the model.
    """
    if params.steer == "never":
        return []
    asked, said = _lengths(items, params, positions)
    rounds = ROUNDS if params.steer_lr == "auto" else 1
    steps = max(FEWEST_STEPS, params.steer_epochs * ceil(known / params.steer_batch_size))
    batch = params.steer_batch_size
    heard = min(SHOWN, known) * SHOWN_SAMPLES
    return [
        Pass(BACKWARD * rounds * steps, batch * (asked + said), batch * said),
        Pass(1 + rounds * LOOKS, heard * (asked + said), heard * said, said + 1),
    ]


def _lengths(
    items: Sequence[Encoded], params: ReinforcementParams, positions: int
) -> tuple[int, int]:
    """Tokens of a prompt, about, and of a drawn answer, at most."""
    longest = max((len(item.spans) for item in items), default=1)
    asked = max((len(item.ids) - len(item.spans) for item in items), default=1)
    said = answer_length(longest, positions, params)
    return min(asked, params.prompt_tokens), said
