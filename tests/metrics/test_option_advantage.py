"""Option advantage: the three sets of values, and when a fact counts as recovered."""

import numpy as np
import pytest

from expunge.core.measuring import aggregate_of, measured
from expunge.core.registry import metrics
from expunge.testing.metrics import measure


def fact(correct, corrupted, random):
    return {"correct": correct, "corrupted": corrupted, "random": random}


def test_sets_are_compared_by_their_means():
    given = {"value_logp": [fact([-1.0, -3.0], [-6.0], [-5.0, -4.0, -6.0])]}
    value = measure("option-advantage", given)
    assert value.mean == pytest.approx(3.0)
    assert value.parts == pytest.approx({"corrupted": -1.0, "recovered": 1.0})


@pytest.mark.parametrize(
    ("correct", "corrupted", "recovered"),
    [(-1.0, -4.0, 1.0), (-5.0, -4.0, 0.0), (-4.0, -4.0, 0.0), (-1.0, -3.6, 1.0), (-1.0, -3.4, 0.0)],
)
def test_recovered_is_a_lead_over_random_without_a_corrupted_one(correct, corrupted, recovered):
    given = {"value_logp": [fact([correct], [corrupted], [-4.0])]}
    assert measure("option-advantage", given).parts["recovered"] == recovered


def test_the_margin_is_given_in_nats_a_token():
    given = {"value_logp": [fact([-1.0], [-2.0], [-4.0])]}
    assert measure("option-advantage", given, margin=2.0).parts["recovered"] == 1.0
    assert measure("option-advantage", given, margin=1.9).parts["recovered"] == 0.0


def test_rows_that_lack_a_kind_of_value_are_left_out_and_counted():
    whole, half = fact([-1.0], [-2.0], [-3.0]), fact([-1.0], [], [-3.0])
    value = measure("option-advantage", {"value_logp": [whole, half]})
    assert (value.n, value.mean) == (1, 2.0)
    assert "1 rows lack" in value.note
    assert measure("option-advantage", {"value_logp": [half]}).mean is None


def test_parts_are_computed_again_from_what_is_stored():
    given = {"value_logp": [fact([-1.0 * k], [-7.0 + k], [-4.0]) for k in range(1, 8)]}
    value = measured("option-advantage", given).value
    again = aggregate_of("option-advantage", metrics.params("option-advantage", {}))
    rows = np.array(list(value.per_row.values()))
    beside = {name: np.array(list(of.values())) for name, of in value.beside.items()}
    assert again(rows, beside) == pytest.approx({"mean": value.mean, **value.parts})
    assert set(value.intervals) == {"corrupted", "recovered"}
