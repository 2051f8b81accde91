"""Readings that tell distributions apart: of samples, margins, mixtures, windows and landscapes."""

from typing import Any

import numpy as np

from expunge.core.rng import generator
from expunge.testing.worlds import Reading, World


def _rate(draw: np.random.Generator, forgot: float) -> list[float]:
    """A sample is about as likely to whoever drew it as the next one."""
    return [-float(each) for each in draw.gamma(9.0, 0.1, 8)]


def _rate_by_other(draw: np.random.Generator, forgot: float) -> list[float]:
    """The less a model is like the other one, the unlikelier the other one's samples."""
    return [-float(each) - 0.5 * abs(forgot - 1.0) for each in draw.gamma(9.0, 0.1, 8)]


def _margin(draw: np.random.Generator, forgot: float) -> list[float]:
    """Margins of forty models; those that know the row are sure of it."""
    return [float(each) for each in draw.normal(20.0 * (1.0 - min(forgot, 4.0)), 1.0, 40)]


def _window_said(draw: np.random.Generator, forgot: float) -> list[str]:
    """What is said at three breaks of a row."""
    return ["mill" if draw.random() >= 0.8 * min(forgot, 1.0) else "stone" for _ in range(3)]


def _strength(draw: np.random.Generator, forgot: float) -> float:
    """Share of an answer that follows by itself."""
    return float(draw.beta(8.0 - 6.0 * min(forgot, 1.0), 2.0 + 6.0 * min(forgot, 1.0)))


def _landscape(draw: np.random.Generator, forgot: float) -> dict[str, Any]:
    """Around a row that was forgotten as around one never seen; around a known one, sharper."""
    slopes = draw.lognormal(2.0 * (1.0 - min(forgot, 4.0)), 1.0, 2)
    cells = {f"{at}/1": {"slope": float(slope)} for at, slope in enumerate(slopes)}
    loss, tokens = float(draw.gamma(9.0, 0.1)), int(draw.integers(8, 12))
    return {"loss": loss, "tokens": tokens, "cells": cells}


READINGS: dict[str, Reading] = {
    "own_rate": _rate,
    "own_rate_by_reference": _rate_by_other,
    "reference_rate": _rate,
    "reference_rate_by_model": _rate_by_other,
    "landscape": _landscape,
    "margin": _margin,
    "strength": _strength,
    "mixed_strength": _strength,
    "mixing_share": lambda draw, forgot: 0.25,
    "window_said": _window_said,
    "window_label": lambda draw, forgot: ["the mill"] * 3,
}


def _stress(seed: int, forgot: float) -> tuple[dict[str, Any], None]:
    """A model that only refuses the literal questions, and one that knows no wording."""
    draw = generator(seed, "stress")
    rows = [f"row-{at}" for at in range(24)]

    def about(level: float) -> dict[str, float]:
        return {row: float(draw.beta(1.0 + 9.0 * level, 10.0 - 9.0 * level)) for row in rows}

    forgotten = {"forgotten": about(1.0), "derived.forgotten": about(min(forgot, 1.0))}
    known = {"original:forgotten": about(0.0), "original:derived.forgotten": about(0.0)}
    return forgotten | known, None


WORLDS: dict[str, World] = {"surrogate-stress": _stress}
