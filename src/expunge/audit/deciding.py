"""How far an attack is from deciding: the recoveries and the rows with which it would.

These are plans, not tests, so a normal approximation serves where the tests themselves resample.
"""

from math import ceil, log

import numpy as np
from scipy.stats import norm

from expunge.audit.statistics import LEVEL, FloatArray, Recovery

ROWS_WORTH_NAMING = 1_000_000
"""A number of rows beyond this helps nobody."""


def decision_points(recovery: Recovery, tests: int) -> tuple[float | None, float | None]:
    """The observed XR at which this attack would just pass, and just fail.

    A leak of another size is given the spread of a yes-or-no leak of that size, times the ratio of
    the spread seen here to that of a yes-or-no leak (clusters make it larger, shares smaller).

    Args:
        recovery: The attack's recovery, with a value.
        tests: Number of attacks that share the error level; failing is harder with more of them.

    Returns:
        Each None when no XR would do.
    """
    grid = np.linspace(0, 1, 401)
    spread = _spread(recovery, grid)
    passes = grid[grid + norm.ppf(1 - LEVEL) * spread <= recovery.threshold]
    fails = grid[grid - norm.ppf(1 - LEVEL / max(1, tests)) * spread > recovery.threshold]
    pass_at = round(float(passes.max()), 4) if recovery.has_power and passes.size else None
    return pass_at, round(float(fails.min()), 4) if fails.size else None


def _spread(recovery: Recovery, grid: FloatArray) -> FloatArray:
    binomial = recovery.model * (1 - recovery.model) / recovery.n
    effect = recovery.variance[0] / binomial if binomial > 0 else 1.0
    leak = np.clip(recovery.control + grid * recovery.gap, 0, 1)
    variance = effect * leak * (1 - leak) / recovery.n + recovery.variance[1]
    spread: FloatArray = np.sqrt(variance) / recovery.gap
    return spread


def rows_to_decide(recovery: Recovery, tests: int) -> int | None:
    """Number of forget rows with which an undecided attack would decide, if XR stayed as it is.

    Args:
        recovery: The recovery of an inconclusive or powerless attack.
        tests: Number of attacks that share the error level.

    Returns:
        None when no sensible number would do.
    """
    value, threshold = recovery.value, recovery.threshold
    if value is None or recovery.at_zero is None:
        return None
    if recovery.has_power:
        level = LEVEL if value < threshold else LEVEL / max(1, tests)
        spread = float(norm.ppf(1 - level)) * float(np.nanstd(recovery.replicates))
        needed = recovery.n * (spread / max(abs(value - threshold), 1e-9)) ** 2
    else:
        spread, exact = recovery.at_zero
        needed = recovery.n * (spread / threshold) ** 2
        if exact:
            needed = max(needed, log(LEVEL) / log(1 - threshold * recovery.gap))
    rows = max(recovery.n + 1, ceil(needed))
    return rows if rows <= ROWS_WORTH_NAMING else None
