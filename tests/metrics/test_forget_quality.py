"""Forget quality: the exact test, its distance, and the comparisons it refuses."""

import math

import pytest

from expunge.core.errors import ExpungeError
from expunge.testing.metrics import measure


def ratios(values):
    """Readings whose log truth ratio is ``values``."""
    rows = values if isinstance(values, dict) else dict(enumerate(values))
    return {
        "paraphrase_nll": {str(row): value for row, value in rows.items()},
        "wrong_nll": {str(row): [0.0, 0.0] for row in rows},
    }


@pytest.mark.parametrize(
    ("reference", "p", "d"),
    [
        ([2.5, 3.5, 4.5, 5.5], 0.7714285714285714, 0.5),
        ([5, 6, 7, 8], 0.02857142857142857, 1.0),
        ([1, 2, 3, 4], 1.0, 0.0),
    ],
)
def test_closed_form(reference, p, d):
    value = measure("forget-quality", ratios([1, 2, 3, 4]), reference=ratios(reference))
    assert value.mean == pytest.approx(p, rel=1e-12)
    assert value.parts["d"] == d
    assert value.parts["log10_p"] == pytest.approx(math.log10(p), abs=1e-12)


def test_a_monotone_map_of_the_ratios_changes_nothing():
    model, reference = [0.1, 0.9, 1.3, 2.0, 2.2], [0.3, 1.0, 1.1, 1.9, 3.0]
    plain = measure("forget-quality", ratios(model), reference=ratios(reference))
    inverse = measure(
        "forget-quality", ratios([-x for x in model]), reference=ratios([-x for x in reference])
    )
    assert plain.mean == inverse.mean


def test_without_a_reference_it_is_not_measurable():
    value = measure("forget-quality", ratios([1, 2, 3]))
    assert value.mean is None
    assert "reference" in value.note


def test_different_rows_are_refused_by_their_number_and_name():
    model, reference = ratios({"a": 1.0, "b": 2.0}), ratios({"b": 2.0, "c": 3.0})
    with pytest.raises(ExpungeError, match=r"2 rows were measured on one .* first 'a'") as refusal:
        measure("forget-quality", model, reference=reference)
    assert refusal.value.code == "E-DATA-013"


def test_different_rows_are_compared_on_request_and_marked():
    model, reference = ratios({"a": 1.0, "b": 2.0}), ratios({"b": 2.0, "c": 3.0})
    value = measure("forget-quality", model, reference=reference, allow_unmatched=True)
    assert value.parts["d"] == 0.5
    assert value.note.startswith("not like for like")


def test_the_exact_method_is_used_on_hundreds_of_rows():
    value = measure(
        "forget-quality",
        ratios([float(index) for index in range(300)]),
        reference=ratios([index + 118.5 for index in range(300)]),
    )
    assert value.parts["d"] == pytest.approx(119 / 300)
    assert value.mean == pytest.approx(1.834066411e-21, rel=1e-9)  # asymptotic: 8.5e-22


def test_a_ratio_that_is_not_a_number_is_not_measurable():
    value = measure("forget-quality", ratios([1.0, math.nan]), reference=ratios([1.0, 2.0]))
    assert value.mean is None


def test_rows_that_both_models_lack_are_counted():
    scores = {
        "paraphrase_nll": {"a": 1.0, "b": 2.0, "c": None},
        "wrong_nll": {row: [1.5] for row in "abc"},
    }
    value = measure("forget-quality", scores, reference=scores)
    assert value.mean == 1.0
    assert "1 of 3 rows have no paraphrase_nll and wrong_nll" in value.note
