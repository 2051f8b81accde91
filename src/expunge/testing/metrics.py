"""Metrics on numbers given by hand, and the conformance suite every metric must pass."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from expunge.core import registry, rng
from expunge.core.measuring import REFERENCE, aggregate_of
from expunge.core.results import Value
from expunge.lm.gather import Need, need
from expunge.testing.expect import expect
from expunge.testing.worlds import readings, worlds

ROWS = 24
"""Rows of the worlds the suite measures on: enough for a p-value to tell two models apart."""

TOLERANCE = 1e-12
"""Largest difference that the order of a sum may make."""

ROLES = {"holdout": 1.0, "retain": 0.0, "neighbour": 0.0}
"""How much a model has forgotten of other rows: one was never seen, the others are kept."""


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
    over one that did the opposite, says "not measurable" when a reading or the reference is
    missing, and is given again by the rows it reports.

    Raises:
        AssertionError: Naming the property that does not hold.
        NotImplementedError: When the metric needs a reading this suite has no example of.
    """
    checks = (
        _is_bounded,
        _ignores_order,
        _ignores_batches,
        _has_direction,
        _says_missing,
        _is_made_of_its_rows,
    )
    for check in checks:
        with _property(f"{metric_id}: {check.__name__.strip('_').replace('_', ' ')}"):
            check(metric_id)


def _is_made_of_its_rows(metric_id: str) -> None:
    for seed in range(5):
        value = _measured(metric_id, seed, forgot=0.5)
        if not value.per_row:
            expect(value.interval is not None or bool(value.parts), "neither rows nor parts")
            continue
        rows = np.array(list(value.per_row.values()), dtype=float)
        beside = {
            name: np.array(list(of.values()), dtype=float) for name, of in value.beside.items()
        }
        again = aggregate_of(metric_id, registry.metrics.params(metric_id))(rows, beside)["mean"]
        expect(value.mean is not None, f"{value} on an ordinary world")
        apart = abs(again - (value.mean or 0.0))
        expect(apart <= 1e-9 * max(1.0, abs(again)), f"{value.mean}, but its rows give {again}")


@contextmanager
def _property(name: str) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error


def _is_bounded(metric_id: str) -> None:
    low, high = (
        edge if bound is None else bound
        for bound, edge in zip(
            registry.metrics.card(metric_id).extra["range"], (-math.inf, math.inf), strict=True
        )
    )
    for seed in range(20):
        value = _measured(metric_id, seed, forgot=0.5 + 40.0 * (seed % 2))
        mean = value.mean
        expect(mean is not None and math.isfinite(mean), f"{value} in world {seed}")
        expect(mean is not None and low <= mean <= high, f"{mean} is outside [{low}, {high}]")


def _ignores_order(metric_id: str) -> None:
    scores, reference = _world(metric_id, 0, forgot=0.5), _reference(metric_id, 1)
    turned = {name: dict(reversed(rows.items())) for name, rows in scores.items()}
    first = measure(metric_id, scores, reference=reference)
    _same(first, measure(metric_id, turned, reference=reference), "rows in another order")


def _ignores_batches(metric_id: str) -> None:
    scores, reference = _world(metric_id, 0, forgot=0.5), _reference(metric_id, 1)
    whole = measure(metric_id, scores, reference=reference).per_row
    for half in (slice(None, 7), slice(7, None)):
        cut, cut_reference = _only(scores, half), reference and _only(reference, half)
        shares = measure(metric_id, cut, reference=cut_reference).per_row
        for row, share in shares.items():
            apart = abs(share - whole.get(row, math.inf))
            expect(apart <= TOLERANCE, f"row {row} has another share among {half} of the rows")


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
    scores, reference = _world(metric_id, 0, forgot=0.5), _reference(metric_id, 1)
    for missing in needs:
        less = {name: rows for name, rows in scores.items() if name != missing}
        value = measure(metric_id, less, reference=None if missing == "reference" else reference)
        expect(value.mean is None and bool(value.note), f"gives {value.mean} without {missing}")


def _measured(metric_id: str, seed: int, *, forgot: float) -> Value:
    """The metric of a model that forgot that much, beside a reference that never knew."""
    scores = _world(metric_id, seed, forgot=forgot)
    return measure(metric_id, scores, reference=_reference(metric_id, seed + 1_000))


def _reference(metric_id: str, seed: int) -> dict[str, dict[str, Any]] | None:
    """Readings of a model that never saw the rows, where the metric compares with one."""
    if REFERENCE not in registry.metrics.card(metric_id).needs:
        return None
    if metric_id in worlds():
        given = worlds()[metric_id](seed, 1.0)[1]
        return None if given is None else {name: dict(rows) for name, rows in given.items()}
    return _world(metric_id, seed, forgot=1.0)


def _same(first: Value, second: Value, when: str) -> None:
    pairs = [(first.mean, second.mean)]
    pairs += [(share, second.per_row.get(row)) for row, share in first.per_row.items()]
    for one, other in pairs:
        agree = one == other or (
            one is not None and other is not None and abs(one - other) <= TOLERANCE
        )
        expect(agree, f"{other} and not {one} with {when}")


def _only(scores: Mapping[str, Any], half: slice) -> dict[str, Any]:
    return {name: dict(list(values.items())[half]) for name, values in scores.items()}


def _world(metric_id: str, seed: int, *, forgot: float) -> dict[str, dict[str, Any]]:
    """Readings of a made-up model on made-up rows.

    Args:
        metric_id: Whose readings are needed.
        seed: Another seed, other rows.
        forgot: 0 knows the rows by heart and lost its utility, 1 never saw them and kept it;
            beyond 1 it is in ruins.
    """
    if metric_id in worlds():
        return {name: dict(rows) for name, rows in worlds()[metric_id](seed, forgot)[0].items()}
    needs = [name for name in registry.metrics.card(metric_id).needs if name != "reference"]
    known = readings()
    unknown = [name for name in needs if need(name).reading not in known]
    if unknown:
        raise NotImplementedError(f"no example of the readings {', '.join(unknown)}")
    return {
        name: {
            f"{need(name).role or 'row'}-{index}": known[need(name).reading](
                rng.generator(seed, name, index), _share(need(name), forgot)
            )
            for index in range(ROWS)
        }
        for name in needs
    }


def _share(wanted: Need, forgot: float) -> float:
    """How much a model has forgotten of these rows."""
    if wanted.role in ROLES:
        return ROLES[wanted.role]
    return {"original": 0.0, "base": 1.0}.get(wanted.who, forgot)
