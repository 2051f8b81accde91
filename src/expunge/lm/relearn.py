"""Fine-tuning a copy of a model and asking it again on the way: what comes back, and how fast."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from expunge.core.rng import derive, generator
from expunge.lm.elicit import ask_plainly, elicit, plain, recall, transcript, worst
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row
from expunge.text.normalise import normalise

GRID = (0, 5, 10, 20, 50, 100)
"""Steps after which the tested rows are asked."""

RETAIN_ASKED = 40
"""Retain rows on which an attack must not destroy the model."""


@dataclass(frozen=True, slots=True)
class Relearned:
    """A copy after its lesson.

    Attributes:
        per_row: Row id -> leak of the tested rows after the last step.
        curve: Step -> mean leak of the tested rows.
        parts: ``retain_before`` and ``retain_after``, the share of retain rows answered.
        invalid: Says so when the lesson itself destroyed the model.
        transcript: One entry a tested row.
    """

    per_row: Mapping[str, float]
    curve: Mapping[int, float]
    parts: Mapping[str, float]
    invalid: str
    transcript: tuple[Mapping[str, Any], ...]


def relearn(
    subject: Subject,
    rows: Sequence[Row],
    lesson: Sequence[Row],
    scene: Scene,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    max_drop: float,
) -> Relearned:
    """Train a copy on the lesson with a fresh AdamW and ask it plainly on the way.

    Args:
        subject: The model; it stays as it is.
        rows: The attacked rows; those that are in the lesson are not tested.
        lesson: Rows to train on.
        scene: Retain rows, seed and answer length.
        steps: Optimiser steps; the grid is `GRID` up to there.
        batch_size: Rows a step.
        lr: Learning rate.
        max_drop: Largest loss of the share of retain rows answered.
    """
    taught = {row.id for row in lesson}
    tested = [row for row in rows if row.id not in taught]
    kept = draw_rows(scene.retain, RETAIN_ASKED, scene.seed, "kept")
    outright = ask_plainly(subject, rows, new_tokens=scene.new_tokens)
    heard = [one for one in outright if one.probe.row.id not in taught]
    curve = {0: fmean(worst(heard).values())}
    student = subject.copy()

    def ask(step: int) -> None:
        nonlocal heard
        heard = elicit(student, plain(tested), new_tokens=scene.new_tokens)
        curve[step] = fmean(worst(heard).values())

    if steps:
        student.train(
            lesson,
            steps=steps,
            lr=lr,
            batch_size=batch_size,
            seed=derive(scene.seed, "relearn"),
            checkpoints={step for step in GRID if 0 < step < steps} | {steps},
            on_step=ask,
        )
    parts = _damage(subject, student, kept, scene.new_tokens)
    lost = parts.get("retain_before", 0.0) - parts.get("retain_after", 0.0) > max_drop
    invalid = "the fine-tuning itself destroyed the model" if lost else ""
    return Relearned(worst(heard), curve, parts, invalid, transcript(heard))


def _damage(
    subject: Subject, student: Subject, kept: Sequence[Row], new_tokens: int
) -> dict[str, float]:
    """Share of retain rows answered before and after the lesson."""
    if not kept:
        return {}
    before = ask_plainly(subject, kept, new_tokens=new_tokens)
    after = elicit(student, plain(kept), new_tokens=new_tokens)
    return {"retain_before": recall(before), "retain_after": recall(after)}


def attack_rate(subject: Subject) -> float:
    """Learning rate by size: 3e-4 below 0.5B parameters, 5e-5 from 1B, log-linear in between.

    Small models need rates at which large ones would lose everything else they know.
    """
    size = sum(weight.numel() for weight in subject.model.parameters())
    position = min(1.0, max(0.0, math.log(size / 0.5e9) / math.log(2.0)))
    return math.exp((1 - position) * math.log(3e-4) + position * math.log(5e-5))


def draw_rows(rows: Sequence[Row], n: int, seed: int, name: str) -> list[Row]:
    """At most ``n`` rows, drawn once for a seed and a name, in the order given."""
    if len(rows) <= n:
        return list(rows)
    chosen = generator(seed, "relearn", name).choice(len(rows), n, replace=False)
    return [rows[index] for index in sorted(chosen)]


def split_facts(
    rows: Sequence[Row], *, share: float, least: int, seed: int
) -> tuple[list[Row], list[Row]]:
    """Rows to train on and rows to test, with no fact on both sides.

    Rows of the same subject with the same value are one fact. The first part holds a share of
    the rows, and at least ``least`` of them.
    """
    facts: dict[tuple[str | None, str], list[Row]] = {}
    for row in rows:
        facts.setdefault((row.subject, normalise(row.value)), []).append(row)
    keys = sorted(facts, key=lambda fact: (fact[0] or "", fact[1]))
    generator(seed, "relearn", "split").shuffle(keys)
    wanted = max(least, round(share * len(rows)))
    lesson: set[str] = set()
    for key in keys:
        if len(lesson) >= wanted:
            break
        lesson.update(row.id for row in facts[key])
    taught = [row for row in rows if row.id in lesson]
    return taught, [row for row in rows if row.id not in lesson]
