"""Readings of recited and of answered texts."""

from collections.abc import Mapping
from typing import Any

from expunge.core.rng import generator
from expunge.testing.worlds import Reading, World
from expunge.testing.worlds.answers import WORDS

READINGS: dict[str, Reading] = {"beginning": lambda draw, forgot: " ".join(WORDS)}


def _selective(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
    """Knowledge of a model that, at 1, forgot what it should and kept the rest."""
    draw = generator(seed, "selective")
    forgotten = min(forgot, 1.0)
    ruin = max(forgot - 1.0, 0.0)
    original = {name: float(draw.uniform(60, 90)) for name in ("ufk", "sk", "urk")}
    kept = {"ufk": 1 - forgotten, "sk": forgotten, "urk": forgotten}
    parts = {name: level * kept[name] / (1 + ruin) for name, level in original.items()}
    return {"parts": parts | {f"{name}_original": of for name, of in original.items()}}, None


WORLDS: dict[str, World] = {"selective-score": _selective}
