"""Readings of benchmarks about facts: likely values, picked options, sampled answers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from expunge.core.rng import generator
from expunge.testing.worlds import Reading, World

TOWNS = ("Arden", "Belm", "Corra", "Dunmere")


def _logp(draw: np.random.Generator, known: float) -> float:
    """Log-probability of a token of a value, the more likely the better it is known."""
    return -float(draw.gamma(4.0, 0.15 + 0.6 * (1.0 - known)))


def _values(draw: np.random.Generator, forgot: float) -> dict[str, list[float]]:
    # Of a corrupted fact "forgot" means that the false value is gone and the true one is back.
    restored = min(forgot, 1.0)
    return {
        "correct": [_logp(draw, restored) for _ in range(2)],
        "corrupted": [_logp(draw, 1.0 - restored) for _ in range(2)],
        "random": [_logp(draw, 0.0) for _ in range(3)],
    }


def _sampled(draw: np.random.Generator, forgot: float) -> list[str]:
    knows = 1.0 - 0.9 * min(forgot, 1.0)
    return [f"It is {TOWNS[0] if draw.random() < knows else TOWNS[1]}." for _ in range(3)]


READINGS: dict[str, Reading] = {
    "true_logp": lambda draw, forgot: _logp(draw, 1.0 - min(forgot, 1.0)),
    "rival_logp": lambda draw, forgot: [_logp(draw, 0.5)],
    "value_logp": _values,
    "sampled": _sampled,
    "values": lambda draw, forgot: [TOWNS[0]],
}

ROWS = 24


def _choices(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
    """Questions of which the original knows three quarters."""
    share = min(forgot, 1.0)
    rows = [f"row-{index}" for index in range(ROWS)]

    def picked(who: str, row: str, knows: float) -> list[list[float]]:
        draw = generator(seed, who, row)
        option = 0 if draw.random() < knows else 1
        return [[float(i == option) - 2.0 for i in range(3)] for _ in range(3)]

    return {
        "choice_scores": {row: picked("model", row, 1.0 - 0.9 * share) for row in rows},
        "choice_correct": {row: [0] for row in rows},
        "original:choice_scores": {row: picked("original", row, 0.75) for row in rows},
    }, None


def _parts(good: Mapping[str, float], bad: Mapping[str, float]) -> World:
    """Named parts between those of a model that did nothing right and one that did all."""

    def world(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
        draw, share = generator(seed, "parts", *sorted(good)), min(forgot, 1.0)
        middle = {name: bad[name] + share * (good[name] - bad[name]) for name in good}
        jitter = {name: 0.02 * float(draw.random()) for name in good}
        return {"parts": {name: middle[name] + jitter[name] for name in good}}, None

    return world


WORLDS: dict[str, World] = {
    "known-choice-accuracy": _choices,
    "restor-recovery": _parts(
        {"clean": 0.9, "corrupted": 0.3, "unlearned": 0.85},
        {"clean": 0.9, "corrupted": 0.3, "unlearned": 0.25},
    ),
    "faithun-score": _parts(
        {"ua": 0.3, "ua_para": 0.3, "ta": 0.9, "sa": 0.9, "ma_f": 0.3, "ma_t": 0.9},
        {"ua": 0.9, "ua_para": 0.9, "ta": 0.5, "sa": 0.5, "ma_f": 0.9, "ma_t": 0.5},
    ),
    "knowundo-score": _parts(
        {"unlearn": 0.4, "retention": 0.9}, {"unlearn": 0.95, "retention": 0.6}
    ),
}
