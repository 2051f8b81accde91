"""What a planned run of ``forget`` will do, counted: passes, tokens, checkpoints.

The counts follow the engine: a step draws its rows and pads them together; the forget level is
measured some forty times on the way, the retain level before and after; a checkpoint is written
every twentieth of the run. `expunge.engine.estimate` puts prices on them.
"""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np

from expunge.core.registry import methods
from expunge.data.encode import Encoded
from expunge.engine.estimate import Pass, Work, adapter_weights, size_of
from expunge.engine.measure import ITEMS
from expunge.engine.method import GradientMethod
from expunge.engine.plan import Plan

MEASUREMENTS = 40
"""As in `expunge.engine.session`, which would load every library here; a test compares them."""

CHECKPOINT_SHARE = 0.05
"""As in `expunge.engine.trainer`, likewise."""

BATCH = 32
"""Items of one forward pass without gradient."""

LEVELS = 3
"""Times both levels are taken besides those on the way: at the start, before training, after."""

JOINED = 1.15
"""Views whose padded lengths differ by no more than this share one forward pass."""


def work_of(plan: Plan, encoded: Mapping[str, Sequence[Encoded]], steps: int) -> Work:
    """Count what a run will do.

    Args:
        plan: The resolved request.
        encoded: Role -> its rows in all their wordings, as token ids.
        steps: Optimiser steps.
    """
    params, folder = plan.params, plan.folder
    size = size_of(folder.parameters, folder.config, folder.tensors)
    forget = encoded.get("forget", ())
    kept = [*encoded.get("retain", ()), *encoded.get("neighbour", ())]
    training, live = _step(plan, forget, kept)
    scored = [
        _over(forget[:ITEMS], _measurements(steps) + LEVELS),
        _over(_own_wordings(kept)[:ITEMS], LEVELS),
        _over(forget, 2),  # the anchor's cache, and the rows of the stop level
    ]
    if live is not None:
        scored.append(Pass(steps, live.tokens, live.supervised))
    adapter = adapter_weights(params.lora_r, size.blocks, size.width)
    every = max(1, ceil(steps * CHECKPOINT_SHARE))
    return Work(
        size=size,
        trained=adapter if plan.adapter else folder.parameters,
        steps=Pass(steps, training.tokens, training.supervised, training.calls),
        parts=params.accumulation,
        scored=scored,
        checkpoints=ceil(steps / every),
        stored=folder.bytes,
        copies=int(live is not None and not plan.adapter),
        adapter=bool(plan.adapter),
    )


def _step(
    plan: Plan, forget: Sequence[Encoded], kept: Sequence[Encoded]
) -> tuple[Pass, Pass | None]:
    """One step: what is trained on, and what is asked of a live anchor."""
    params = plan.params
    method = GradientMethod.assemble(methods.load(plan.method), params)
    rows = params.batch_size * params.accumulation
    drawn = min(rows, len(plan.rows["forget"]))
    views = [
        _drawn(kept, rows) if view in ("retain", "neighbour") else _drawn(forget, drawn)
        for view in method.views
    ]
    lengths = [view.tokens / view.times for view in views if view.times]
    together = max(lengths, default=1) <= JOINED * min(lengths, default=1)
    calls = 1 if together else len(lengths)
    live = None
    if {"anchor-logits", "anchor-hidden"} & method.needs:
        again = _drawn(kept, rows)
        answers = params.retain_term == "kl" and params.kl_scope == "answer"
        logits = again.supervised if answers else again.tokens * (params.retain_term == "kl")
        live = Pass(1, again.tokens, logits)
        if not answers:  # other positions than the answers' take a forward pass of their own
            views.append(live)
            calls += 1
    return (
        Pass(
            tokens=sum(view.tokens for view in views),
            supervised=sum(view.supervised for view in views),
            calls=calls * params.accumulation,
        ),
        live,
    )


def _drawn(items: Sequence[Encoded], rows: int) -> Pass:
    """``rows`` rows drawn at random and padded together; ``times`` is their number."""
    if not items or not rows:
        return Pass()
    lengths = np.array([len(item.ids) for item in items])
    longest = float(np.quantile(lengths, rows / (rows + 1)))
    supervised = sum(len(item.spans) for item in items) / len(items)
    return Pass(rows, rows * longest, rows * supervised)


def _over(items: Sequence[Encoded], times: int) -> Pass:
    """All items once, without gradient, sorted by length."""
    if not items:
        return Pass()
    return Pass(
        times,
        sum(len(item.ids) for item in items),
        sum(len(item.spans) for item in items),
        ceil(len(items) / BATCH),
    )


def _own_wordings(items: Sequence[Encoded]) -> list[Encoded]:
    """The first item of each row: its own wording, without its paraphrases."""
    before = [None, *(item.row for item in items)]
    return [item for item, last in zip(items, before, strict=False) if item.row != last]


def _measurements(steps: int) -> int:
    """How often the forget level is taken on the way, the last step always."""
    return ceil(steps / max(1, steps // MEASUREMENTS))
