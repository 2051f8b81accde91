"""Readings of membership attacks, and the parts of the scores that gather them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core.rng import generator
from expunge.testing.worlds import Reading, World


def _tokens(scale: float, rise: float) -> Reading:
    """Log-probabilities whose losses grow with what was forgotten."""

    def reading(draw: np.random.Generator, forgot: float) -> list[float]:
        return [-float(each) for each in draw.gamma(2.0, scale + rise * forgot, 6)]

    return reading


def _numbers(scale: float, rise: float) -> Reading:
    return lambda draw, forgot: float(draw.gamma(4.0, scale + rise * forgot))


def _standardised(draw: np.random.Generator, forgot: float) -> list[float]:
    return [float(each) for each in draw.normal(0.5 - min(forgot, 1.0), 0.5, 6)]


READINGS: dict[str, Reading] = {
    "standardised_logp": _standardised,
    "lowered_nll": _numbers(0.6, 0.2),
    "grad_norm": _numbers(0.1, 1.0),
    "neighbour_nll": lambda draw, forgot: [float(e) for e in draw.gamma(9.0, 0.35, 3)],
    "prefixed_logp": _tokens(0.5, 1.05),
}


def _made_of(names: Sequence[str], low: Sequence[str] = ()) -> World:
    """A world of parts in [0, 1], high for a model that forgot, except those named ``low``."""

    def world(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
        parts = {}
        for name in names:
            share = 1 - min(forgot, 1.0) if name in low else min(forgot, 1.0)
            parts[name] = float(generator(seed, name).beta(2.0 + 6.0 * share, 8.0 - 6.0 * share))
        return {"parts": parts}, None

    return world


def _fixed(world: World, values: Mapping[str, float]) -> World:
    def fixed(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
        return {"parts": {**world(seed, forgot)[0]["parts"], **values}}, None

    return fixed


_MEMORY = (
    "extraction_strength",
    "exact_memorisation",
    "paraphrase_probability",
    "truth_ratio",
)
_ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
_ABILITY = ("model_utility", "fluency")

WORLDS: dict[str, World] = {
    "memorisation-score": _made_of(_MEMORY, low=_MEMORY),
    "privacy-score": _fixed(
        _made_of(_ATTACKS, low=_ATTACKS), {f"reference_{name}": 0.25 for name in _ATTACKS}
    ),
    "utility-score": _fixed(_made_of(_ABILITY), {f"original_{name}": 0.9 for name in _ABILITY}),
    "unlearning-score": _made_of(("memorisation", "privacy", "utility")),
}
