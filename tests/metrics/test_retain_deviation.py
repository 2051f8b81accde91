"""Retain deviation: how far, whichever way."""

import pytest

from expunge.core.errors import ExpungeError
from expunge.testing.metrics import measure


def ready(retain, holdout):
    return {"score": retain, "holdout.score": holdout}


KNOWN, HALF, LOST = (
    ready([1.0, 2.0], [3.0, 4.0]),
    ready([1.0, 4.0], [2.0, 3.0]),
    ready([3.0, 4.0], [1.0, 2.0]),
)


@pytest.mark.parametrize(
    ("model", "reference", "expected"),
    [(KNOWN, KNOWN, 0.0), (HALF, KNOWN, 50.0), (KNOWN, HALF, 100.0), (LOST, HALF, 100.0)],
)
def test_by_hand(model, reference, expected):
    value = measure("retain-deviation", model, reference=reference)
    assert value.mean == expected
    assert value.n == 2


def test_the_score_is_standardised():
    model = {"standardised_logp": [[1.0, 0.5]], "holdout.standardised_logp": [[-1.0, 2.0]]}
    value = measure("retain-deviation", model, reference=model)
    assert value.per_row == {"0": -0.5}
    assert value.parts == {"auc": 1.0, "auc_reference": 1.0}


def test_without_a_reference_or_its_readings_it_is_not_measurable():
    assert measure("retain-deviation", KNOWN).mean is None
    lacking = measure("retain-deviation", KNOWN, reference={"score": [1.0, 2.0]})
    assert lacking.note == "not measurable: of the reference, no row has holdout.score"


def test_a_reference_that_lost_everything_is_no_measure():
    assert "A_r is 0" in measure("retain-deviation", KNOWN, reference=LOST).note


def test_other_rows_are_refused():
    with pytest.raises(ExpungeError):
        measure("retain-deviation", KNOWN, reference=ready([1.0], [3.0, 4.0]))
