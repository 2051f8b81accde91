"""From how far two models have moved to how much is erased: the arithmetic several metrics share.

Definition (per layer l; d_r: what the retrained reference lacks of the original, d_u: what the
unlearned model lacks of it, in the same unit; tau: below it, the layer never held the knowledge):
    depth = sum_l d_r clip(d_u / d_r, 0, 1) / sum_l d_r       over the layers with d_r > tau

Reference: Measuring the Depth of LLM Unlearning via Activation Patching (2026).
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from expunge.core.bootstrap import FloatArray
from expunge.core.results import Value
from expunge.core.scores import asked, matched, table, unmeasurable

Scores = Mapping[str, Any]


def depth(reference: Sequence[float], unlearned: Sequence[float], threshold: float) -> float | None:
    """How much of what the reference lacks the unlearned model lacks too.

    Args:
        reference: [L], d_r.
        unlearned: [L], d_u.
        threshold: tau.

    Returns:
        0 (intact) to 1 (as gone as in the reference); None where no layer held the knowledge.

    Example:
        >>> round(depth([0.5, 1.0, 0.02], [0.25, 1.5, 0.4], 0.05), 7)
        0.8333333
    """
    held = [pair for pair in zip(reference, unlearned, strict=True) if pair[0] > threshold]
    if not held:
        return None
    gone = sum(lacks * clipped(erased / lacks) for lacks, erased in held)
    return gone / sum(lacks for lacks, _ in held)


def mean_depth(scores: Scores, reference: Scores | None, need: str, threshold: float) -> Value:
    """`depth` of every row, and the mean share of each layer among the rows it holds.

    Args:
        scores: ``need``: row id -> [L], d_u.
        reference: The same of the retrained reference, d_r.
        need: Name of the reading.
        threshold: tau, in nats.

    Returns:
        The mean over the rows of which some layer holds something; parts ``layer-0`` ... where
        a layer holds something of some row.

    Raises:
        ExpungeError: E-DATA-013 when the two models were measured on different rows.
    """
    if reference is None:
        return unmeasurable("it compares with a retrained reference, and none was given")
    now, expected = table(scores, need), table(reference, need)
    if not now or not expected:
        return unmeasurable(f"no row has {need}: it takes the original beside both models")
    matched(now, expected, allow_unmatched=False)
    found = {row: depth(expected[row], now[row], threshold) for row in now}
    shares = {row: share for row, share in found.items() if share is not None}
    broken = [row for row in now if any(map(math.isnan, (*now[row], *expected[row])))]
    if broken:
        return unmeasurable(f"{need} of {len(broken)} rows is not a number ({broken[0]})")
    if not shares:
        return unmeasurable(
            f"in no layer do the reference's states cost the original more than {threshold} nats: "
            "the original does not know these rows, or the reference still does"
        )
    return Value(
        mean=fmean(shares.values()),
        per_row=shares,
        parts=_by_layer(now, expected, threshold),
        note=_left_out(len(asked(scores, need)), len(now), len(shares)),
    )


def clipped(share: float) -> float:
    """A share cut to [0, 1]."""
    return min(max(share, 0.0), 1.0)


def by_weight(values: FloatArray, weights: FloatArray) -> float:
    """The weighted mean of values [n]; NaN where nothing has a weight."""
    total = float(weights.sum())
    return float(values @ weights) / total if total > 0 else math.nan


def weighted(values: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """`by_weight` of two tables with the same keys."""
    return by_weight(*(np.array([of[key] for key in values], float) for of in (values, weights)))


def _by_layer(now: Scores, expected: Scores, threshold: float) -> dict[str, float]:
    shares: dict[int, list[float]] = {}
    for row, lacks in expected.items():
        for layer, (most, gone) in enumerate(zip(lacks, now[row], strict=True)):
            if most > threshold:
                shares.setdefault(layer, []).append(clipped(gone / most))
    return {f"layer-{layer}": fmean(shares[layer]) for layer in sorted(shares)}


def _left_out(rows: int, read: int, held: int) -> str:
    notes = [f"{rows - read} of {rows} rows do not hold their value"] if rows > read else []
    notes += [f"{read - held} of {rows} rows are held by no layer"] if read > held else []
    return "; ".join(notes)
