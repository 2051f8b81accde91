"""Intervals over entities: closed forms, pairing, and what does not matter."""

import numpy as np
import pytest

from expunge.core.bootstrap import FEWEST, Units, interval, replicated


def spread(drawn):
    low, high = interval(drawn["mean"])
    return high - low


def facts(entities, each, seed=0):
    """Rows of entities that agree within themselves."""
    level = np.random.default_rng(seed).random(entities)
    return {f"{e}-{k}": float(level[e]) for e in range(entities) for k in range(each)}


def of(rows):
    return {row: row.split("-")[0] for row in rows}


def test_rows_of_one_entity_count_once():
    rows = facts(20, 5)
    over_rows = spread(replicated(rows, {}, Units({})))
    over_entities = spread(replicated(rows, {}, Units(of(rows))))
    assert over_entities / over_rows == pytest.approx(5**0.5, rel=0.15)


def test_spread_is_the_standard_error_of_the_mean():
    rows = {str(i): float(i % 2) for i in range(400)}
    drawn = replicated(rows, {}, Units({}))
    assert drawn["mean"].std() == pytest.approx(0.5 / 20, rel=0.1)
    low, high = interval(drawn["mean"])
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.025, rel=0.15)


def test_the_order_of_the_rows_does_not_matter():
    rows = facts(12, 3)
    turned = dict(reversed(rows.items()))
    first, second = (replicated(each, {}, Units(of(rows), 3))["mean"] for each in (rows, turned))
    assert np.allclose(first, second, atol=1e-12)


def test_another_seed_draws_otherwise():
    rows = facts(12, 3)
    first, second = (replicated(rows, {}, Units({}, seed))["mean"] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_models_on_the_same_rows_are_resampled_alike():
    rows = facts(30, 2)
    better = {row: value + 0.01 for row, value in rows.items()}
    units = Units(of(rows))
    apart = replicated(better, {}, units)["mean"] - replicated(rows, {}, units)["mean"]
    assert np.allclose(apart, 0.01)


def test_other_rows_are_resampled_apart():
    rows = facts(30, 1)
    others = {f"h{row}": value for row, value in rows.items()}
    drawn = replicated(
        rows, {"holdout": others}, Units({}), lambda a, b: {"mean": a.mean() - b["holdout"].mean()}
    )
    assert drawn["mean"].std() > 0.01


def test_too_few_entities_are_not_resampled():
    rows = facts(FEWEST - 1, 10)
    units = Units(of(rows))
    assert units.names(rows) == [f"row {row}" for row in rows]
    enough = facts(FEWEST, 10)
    assert set(Units(of(enough)).names(enough)) == set(of(enough).values())


def test_equal_rows_have_an_interval_of_no_width():
    drawn = replicated(dict.fromkeys("abcdef", 0.25), {}, Units({}))
    assert interval(drawn["mean"]) == (0.25, 0.25)


def test_an_undefined_statistic_has_no_interval():
    assert interval(np.array([np.nan] * 10 + [1.0] * 90)) is None
    assert interval(np.array([np.nan] * 4 + [1.0] * 96)) == (1.0, 1.0)


def test_a_statistic_of_its_own_equals_the_fast_mean():
    rows = facts(10, 2)
    slow = replicated(rows, {}, Units({}), lambda a, b: {"mean": float(a.mean())})
    assert np.allclose(slow["mean"], replicated(rows, {}, Units({}))["mean"])
