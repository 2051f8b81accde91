"""Readings of personal data and of whole documents, and worlds of numbers made of numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from expunge.core.rng import generator
from expunge.testing.worlds import Reading, World


def _hits(draw: np.random.Generator, forgot: float) -> list[bool]:
    return [bool(hit) for hit in draw.random(12) >= 0.6 * min(forgot, 1.0)]


READINGS: dict[str, Reading] = {
    "training_hit": _hits,
    "pii": lambda draw, forgot: [["name", "alder"], ["medical", "cedar"], ["phone", "elm"]],
}


def _near(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
    """Qualities beside those of a retrained model, which knows half of what the original does."""
    draw = generator(seed, "quality")
    original = float(draw.uniform(70, 95))
    target = original / 2
    model = target + (original - target) * (1 - min(forgot, 1.0)) + float(draw.uniform(-1, 0))
    parts = {"model": model, "reference": target, "original": original}
    return {"parts": parts}, None


def _tasks(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
    """Six numbers: all is left of what should go and little of what should stay, or the reverse."""
    draw, share = generator(seed, "tasks"), min(forgot, 1.0)
    noise = {name: float(draw.uniform(0.02, 0.08)) for name in ("task1", "task2", "task3")}
    gone = {f"forget.{name}": (1 - share) * (1 - off) + off for name, off in noise.items()}
    kept = {f"retain.{name}": share * (1 - 2 * off) + off for name, off in noise.items()}
    return {"parts": gone | kept}, None


def _three(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
    draw, share = generator(seed, "three"), min(forgot, 1.0)
    known = float(draw.uniform(0.6, 0.9))
    parts = {"tasks": known * share, "auc": 1 - 0.5 * share, "mmlu": known}
    return {"parts": parts}, None


WORLDS: dict[str, World] = {
    "forget-degree": _near,
    "retain-utility": _near,
    "task-aggregate": _tasks,
    "lume-score": _three,
}
