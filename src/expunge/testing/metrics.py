"""Metrics on numbers given by hand, and the conformance suite every metric must pass."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from expunge.core import registry, rng
from expunge.core.results import Value
from expunge.testing.expect import expect

ROWS = 24
"""Rows of the worlds the suite measures on: enough for a p-value to tell two models apart."""

TOLERANCE = 1e-12
"""Largest difference that the order of a sum may make."""


def measure(
    metric_id: str,
    scores: Mapping[str, Any],
    *,
    reference: Mapping[str, Any] | None = None,
    **params: Any,
) -> Value:
    """Compute a metric on readings given by hand.

    Args:
        metric_id: Its id, for instance ``"truth-ratio"``.
        scores: Reading name -> {row id: value}, or a plain list in the order of the rows.
        reference: The same readings of the retrained reference, where the metric compares.
        **params: Parameters of the metric; the rest stay at their defaults.

    Returns:
        The value; its ``mean`` is None when the metric cannot be measured, with the reason in
        ``note``.

    Example:
        >>> measure("truth-ratio", {"paraphrase_nll": [1.0], "wrong_nll": [[1.5, 2.5]]}).mean
        0.36787944117144233
    """
    value: Value = registry.metrics.load(metric_id).compute(
        scores, registry.metrics.params(metric_id, params), reference
    )
    return value


def check_metric(metric_id: str) -> None:
    """Run the conformance suite on one metric.

    It is bounded by its card's range, does not depend on the order of the rows, gives each row the
    same share whichever rows it is measured with, prefers a model that forgot and kept its utility
    over one that did the opposite, and says "not measurable" when a reading or the reference is
    missing.

    Raises:
        AssertionError: Naming the property that does not hold.
        NotImplementedError: When the metric needs a reading this suite has no example of.
    """
    for check in (_is_bounded, _ignores_order, _ignores_batches, _has_direction, _says_missing):
        with _property(f"{metric_id}: {check.__name__.strip('_').replace('_', ' ')}"):
            check(metric_id)


@contextmanager
def _property(name: str) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error


def _is_bounded(metric_id: str) -> None:
    low, high = registry.metrics.card(metric_id).extra["range"]
    for seed in range(20):
        value = _measured(metric_id, seed, forgot=0.5 + 40.0 * (seed % 2))
        mean = value.mean
        expect(mean is not None and math.isfinite(mean), f"{value} in world {seed}")
        expect(mean is not None and low <= mean <= high, f"{mean} is outside [{low}, {high}]")


def _ignores_order(metric_id: str) -> None:
    scores, reference = _world(metric_id, 0, forgot=0.5), _world(metric_id, 1, forgot=1.0)
    turned = {name: dict(reversed(rows.items())) for name, rows in scores.items()}
    first = measure(metric_id, scores, reference=reference)
    _same(first, measure(metric_id, turned, reference=reference), "rows in another order")


def _ignores_batches(metric_id: str) -> None:
    scores, reference = _world(metric_id, 0, forgot=0.5), _world(metric_id, 1, forgot=1.0)
    whole = measure(metric_id, scores, reference=reference).per_row
    rows = list(next(iter(scores.values())))
    for part in (rows[:7], rows[7:]):
        cut, cut_reference = _only(scores, part), _only(reference, part)
        shares = measure(metric_id, cut, reference=cut_reference).per_row
        for row, share in shares.items():
            apart = abs(share - whole.get(row, math.inf))
            expect(apart <= TOLERANCE, f"row {row} has another share among {len(part)} rows")


def _has_direction(metric_id: str) -> None:
    card = registry.metrics.card(metric_id).extra
    good, bad = (
        _badness(card["better"], _measured(metric_id, 0, forgot=share).mean, card.get("target"))
        for share in (1.0, 0.0)
    )
    expect(good < bad, f"{card['better']} is better, but it prefers a model that knows all")


def _badness(better: str, mean: float | None, target: float | None) -> float:
    if mean is None:
        raise AssertionError("cannot be measured on an ordinary world")
    if better == "target" and target is not None:
        return abs(mean - target)
    return {"low": mean, "high": -mean}[better]


def _says_missing(metric_id: str) -> None:
    needs = registry.metrics.card(metric_id).needs
    scores, reference = _world(metric_id, 0, forgot=0.5), _world(metric_id, 1, forgot=1.0)
    for missing in needs:
        less = {name: rows for name, rows in scores.items() if name != missing}
        value = measure(metric_id, less, reference=None if missing == "reference" else reference)
        expect(value.mean is None and bool(value.note), f"gives {value.mean} without {missing}")


def _measured(metric_id: str, seed: int, *, forgot: float) -> Value:
    """The metric of a model that forgot that much, beside a reference that never knew."""
    scores = _world(metric_id, seed, forgot=forgot)
    return measure(metric_id, scores, reference=_world(metric_id, seed + 1_000, forgot=1.0))


def _same(first: Value, second: Value, when: str) -> None:
    pairs = [(first.mean, second.mean)]
    pairs += [(share, second.per_row.get(row)) for row, share in first.per_row.items()]
    for one, other in pairs:
        agree = one == other or (
            one is not None and other is not None and abs(one - other) <= TOLERANCE
        )
        expect(agree, f"{other} and not {one} with {when}")


def _only(scores: Mapping[str, Any], rows: list[str]) -> dict[str, Any]:
    return {name: {row: values[row] for row in rows} for name, values in scores.items()}


def _world(metric_id: str, seed: int, *, forgot: float) -> dict[str, dict[str, Any]]:
    """Readings of a made-up model on made-up rows.

    Args:
        metric_id: Whose readings are needed.
        seed: Another seed, other rows.
        forgot: 0 knows the rows by heart and lost its utility, 1 never saw them and kept it;
            beyond 1 it is in ruins.
    """
    names = [name for name in registry.metrics.card(metric_id).needs if name != "reference"]
    unknown = [name for name in names if name not in _READINGS]
    if unknown:
        raise NotImplementedError(f"no example of the readings {', '.join(unknown)}")
    return {
        name: {
            f"row-{index}": _READINGS[name](rng.generator(seed, name, index), forgot)
            for index in range(ROWS)
        }
        for name in names
    }


def _token_hits(draw: np.random.Generator, forgot: float) -> list[bool]:
    is_hit = draw.random(int(draw.integers(4, 12))) >= 0.6 * min(forgot, 1.0)
    return [bool(hit) for hit in is_hit]


def _generation(draw: np.random.Generator, forgot: float) -> str:
    right = ["alder", "birch", "cedar", "elm", "fir"]
    return " ".join(word if draw.random() >= 0.8 * min(forgot, 1.0) else "stone" for word in right)


_READINGS: dict[str, Callable[[np.random.Generator, float], Any]] = {
    "nll": lambda draw, forgot: float(draw.gamma(2.0, 0.05 + 1.5 * forgot)),
    "paraphrase_nll": lambda draw, forgot: float(draw.gamma(9.0, 0.1 + 0.2 * forgot)),
    "wrong_nll": lambda draw, forgot: [float(each) for each in draw.gamma(9.0, 0.3, 5)],
    "token_logp": lambda draw, forgot: [
        -float(each) for each in draw.gamma(2.0, 0.05 + 1.5 * forgot, 6)
    ],
    "token_hit": _token_hits,
    "generation": _generation,
    "reply": lambda draw, forgot: "alder birch cedar elm fir",
    "parts": lambda draw, forgot: float(draw.beta(2.0 + 6.0 * min(forgot, 1.0), 2.0)),
}
