"""Readings of studies: rows in strata, and tables of runs."""

from collections.abc import Mapping
from typing import Any

from expunge.core.rng import generator
from expunge.testing.worlds import Reading, World
from expunge.testing.worlds.answers import READINGS as ANSWERS

STRATA = ("direct", "indirect", "general")
SHARES = (0.01, 0.05, 0.25, 1.0)
RUNS = 4

READINGS: dict[str, Reading] = {
    "stratum": lambda draw, forgot: STRATA[int(draw.integers(len(STRATA)))]
}


def _strata(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
    """Rows to keep of a model that, at 1, kept all of them."""
    lost = abs(1.0 - forgot)
    draw = generator(seed, "strata")
    readings = {**ANSWERS, **READINGS}
    names = ("token_logp", "generation", "reply", "stratum")
    rows = [f"row-{at}" for at in range(18)]
    return {name: {row: readings[name](draw, lost) for row in rows} for name in names}, None


def _paths(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
    """Runs of two histories; at 1 the history makes no difference."""
    draw = generator(seed, "paths")
    apart = {"AB": 0.0, "BA": 0.2 * abs(1.0 - min(forgot, 2.0))}
    runs = {f"{order}/{at}": order for at in range(RUNS) for order in apart}
    utility = {run: 0.6 - apart[order] + 0.05 * draw.random() for run, order in runs.items()}
    return {"utility": utility, "order": runs}, None


def _coresets(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
    """Runs over shares of the rows; at 1 nothing less than all rows does, at 0 any share."""
    draw = generator(seed, "coresets")
    hard = min(forgot, 1.0)
    runs = {f"{share}/{at}": share for at in range(RUNS) for share in SHARES}
    level = {share: 1.0 - 0.6 * hard * (share < 1.0) for share in SHARES}
    return {
        "effectiveness": {
            run: 0.9 * level[share] - 0.001 * draw.random() for run, share in runs.items()
        },
        "utility": {run: 0.7 + 0.001 * draw.random() for run in runs},
        "share": runs,
    }, None


WORLDS: dict[str, World] = {
    "stratum-utility": _strata,
    "path-spread": _paths,
    "coreset-effect": _coresets,
}
