"""A metric by its id: its number with rows, interval, seed and what it was compared with."""

import numpy as np
import pytest

from expunge.core.bootstrap import Units
from expunge.core.measuring import Measure, combined, measured

ROWS = {f"a{author}q{question}": 0.1 * author for author in range(10) for question in range(4)}
AUTHORS = {row: row[:2] for row in ROWS}


def probability(**options):
    return measured("probability", {"nll": ROWS}, units=Units(AUTHORS, 7), **options)


def test_number_carries_rows_interval_entities_and_seed():
    value = probability().value
    assert value.n == 40
    assert value.units == 10
    assert value.seed == 7
    assert value.interval[0] < value.mean < value.interval[1]
    assert value.mean == pytest.approx(np.exp(-0.1 * np.arange(10)).mean())


def test_number_is_given_again_by_what_is_stored():
    stored = probability().value.as_dict()
    assert np.mean(list(stored["per_row"].values())) == pytest.approx(stored["mean"], abs=1e-12)
    assert stored["n"] == 40


def test_few_entities_are_said():
    value = measured("probability", {"nll": ROWS}, units=Units(dict.fromkeys(ROWS, "one"))).value
    assert "too few entities (1)" in value.note
    assert value.units == 40


def test_what_was_compared_with_is_named_only_where_it_was():
    ratios = {"paraphrase_nll": ROWS, "wrong_nll": {row: [0.5] for row in ROWS}}
    quality = measured("forget-quality", ratios, ratios).value
    assert quality.against == "reference"
    assert quality.intervals["d"][0] >= 0
    assert probability().value.against == ""
    alone = measured("forget-quality", ratios).value
    assert (alone.mean, alone.against, alone.interval) == (None, "", None)


def test_parts_move_together_in_a_combined_number():
    """The harmonic mean of a number with itself is that number, in every replicate."""
    part = probability()
    twice = combined("model-utility", {"a": part, "b": part}, {})
    assert twice.value.mean == pytest.approx(part.value.mean)
    assert np.allclose(twice.replicates["mean"], part.replicates["mean"])
    assert twice.value.interval == pytest.approx(part.value.interval)


def test_a_part_that_was_not_measured_makes_the_whole_unmeasurable():
    nothing = measured("probability", {})
    whole = combined("model-utility", {"a": probability(), "b": nothing}, {}).value
    assert whole.mean is None
    assert "b" in whole.note


def test_direction_is_the_cards_unless_the_rows_turn_it_round():
    assert Measure(metric="probability").direction == "low"
    assert Measure(metric="probability", on="retain", better="high").direction == "high"


def test_one_row_has_no_interval_and_says_so():
    value = measured("probability", {"nll": {"a": 0.5}}).value
    assert value.interval is None
    assert (value.n, value.units) == (1, 1)
    assert "one row: an interval takes two" in value.note


def test_a_number_that_no_resample_has_says_why_it_has_no_interval():
    value = measured("dynamic-deviation", {"deviation": {"1": 20.0, "2": 30.0, "3": 25.0}}).value
    assert value.mean == pytest.approx(27.5)
    assert value.interval is None
    assert "no interval" in value.note


def test_an_interval_that_leaves_its_number_out_says_so():
    """Drawing rows again makes two equal sets less alike, never more."""
    ratios = {"paraphrase_nll": ROWS, "wrong_nll": {row: [0.5] for row in ROWS}}
    other = {**ratios, "paraphrase_nll": {row: x + 0.01 for row, x in reversed(ROWS.items())}}
    value = measured("forget-quality", ratios, other).value
    assert value.mean > value.interval[1]
    assert "leaves it out" in value.note
