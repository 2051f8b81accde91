"""95% intervals of what a record holds only as means: cautious ones, from the numbers on the page.

Definition (z = 1.96; n units, the subjects or the facts of the audit):
    mean of values in [0, 1]     (m + z^2/2n -+ z sqrt(m(1-m)/n + z^2/4n^2)) / (1 + z^2/n)  Wilson
    distribution function        F -+ sqrt( log(2 / .05) / 2n )                  at all x at once
    AUC from placements          A -+ z sqrt( V_members / m + V_others / n )     members by unit
    AUC without placements       A -+ z sqrt( (A(1-A) + (m-1)(Q1-A^2) + (n-1)(Q2-A^2)) / mn ),
                                 Q1 = A / (2-A),  Q2 = 2 A^2 / (1+A)

Values in [0, 1] with mean m have a variance of at most m(1-m), that of yes-or-no values: what
Wilson's interval is too wide for others is the price of means without rows.

Reference: Probable Inference, the Law of Succession, and Statistical Inference (1927); The Tight
Constant in the Dvoretzky-Kiefer-Wolfowitz Inequality (1990); Comparing the areas under two or more
correlated receiver operating characteristic curves (1988); The meaning and use of the area under a
receiver operating characteristic (ROC) curve (1982).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import log, sqrt
from statistics import fmean, variance

Z = 1.959964
LEVEL = 0.05

Range = tuple[float, float]


def wilson(mean: float, n: int) -> Range | None:
    """Interval of the mean of n values in [0, 1]; None without any.

    Example:
        >>> [round(bound, 4) for bound in wilson(0.0, 40)], wilson(0.5, 0)
        ([0.0, 0.0876], None)
    """
    if n <= 0:
        return None
    middle = mean + Z * Z / (2 * n)
    half = Z * sqrt(max(0.0, mean * (1 - mean)) / n + Z * Z / (4 * n * n))
    return _inside((middle - half) / (1 + Z * Z / n), (middle + half) / (1 + Z * Z / n))


def margin(n: int) -> float | None:
    """Half the width of the band around a distribution function of n values; None without any.

    Example:
        >>> round(margin(80), 3)
        0.152
    """
    return sqrt(log(2 / LEVEL) / (2 * n)) if n > 0 else None


def placed(
    members: Mapping[str, float], others: Sequence[float], units: Mapping[str, str | None]
) -> Range | None:
    """Interval of an AUC from the placements of both sides; None where a side has fewer than two.

    Args:
        members: Row id -> placement among the others.
        others: Placements of the others.
        units: Row id -> whom it belongs to; rows that are not named stand for themselves.
    """
    if min(len(members), len(others)) < 2:
        return None
    auc = fmean(members.values())
    sums: dict[str, float] = defaultdict(float)
    for row, placement in members.items():
        sums[units.get(row) or f"row {row}"] += placement - auc
    between = sum(one * one for one in sums.values()) / len(members) ** 2
    spread = between * len(sums) / max(1, len(sums) - 1) + variance(others) / len(others)
    return _around(auc, spread, min(len(members), len(others)))


def area(auc: float, members: float, others: float) -> Range | None:
    """Interval of an AUC of which only the numbers of rows are known; None without any."""
    if min(members, others) < 1:
        return None
    up, down = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    pairs = (members - 1) * (up - auc * auc) + (others - 1) * (down - auc * auc)
    spread = (auc * (1 - auc) + pairs) / (members * others)
    return _around(auc, spread, int(min(members, others)))


def _around(auc: float, spread: float, least: int) -> Range | None:
    """Where no two rows lie the wrong way round, nothing varies: then as for a share of rows."""
    if spread <= 0:
        return wilson(auc, least)
    half = Z * sqrt(spread)
    return _inside(auc - half, auc + half)


def _inside(low: float, high: float) -> Range:
    return max(0.0, low), min(1.0, high)
