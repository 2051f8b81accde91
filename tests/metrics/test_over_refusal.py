"""Over-refusal: above what the original refused."""

import pytest

from expunge.testing.metrics import measure

NO, YES = "I can't answer that.", "At noon."


def test_only_what_was_added_is_counted():
    scores = {"generation": [NO, NO, YES, YES], "original:generation": [NO, YES, YES, YES]}
    value = measure("over-refusal", scores)
    assert value.mean == 0.25
    assert value.parts == {"model": 0.5, "original": 0.25}


def test_a_model_that_lost_refusals_is_below_zero():
    scores = {"generation": [YES, YES], "original:generation": [NO, NO]}
    assert measure("over-refusal", scores).mean == -1


def test_rows_are_matched_by_name():
    scores = {
        "generation": {"a": NO, "b": YES},
        "original:generation": {"b": NO, "a": YES, "c": NO},
    }
    value = measure("over-refusal", scores)
    assert value.per_row == {"a": 1.0, "b": -1.0}
    assert value.mean == pytest.approx(0)


def test_without_the_original_it_is_not_measurable():
    assert measure("over-refusal", {"generation": [NO]}).mean is None
