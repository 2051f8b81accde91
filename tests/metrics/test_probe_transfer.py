"""Probe transfer: a difference of two accuracies."""

import pytest

from expunge.core.errors import ExpungeError
from expunge.core.measuring import measured
from expunge.testing.metrics import measure

NOW = {
    "linear_hit": {"a": 1, "b": 1, "c": 1, "d": 0},
    "knn_hit": {"a": 0, "b": 0, "c": 0, "d": 1},
}
NEVER = {
    "linear_hit": {"a": 1, "b": 0, "c": 0, "d": 0},
    "knn_hit": {"a": 1, "b": 1, "c": 0, "d": 1},
}


def test_it_is_the_difference_of_the_accuracies_of_the_probe_asked_for():
    value = measure("probe-transfer", NOW, reference=NEVER)
    assert value.mean == 0.5
    assert value.parts == {"accuracy": 0.75, "reference_accuracy": 0.25}
    assert measure("probe-transfer", NOW, reference=NEVER, probe="knn").mean == -0.5


def test_the_reference_has_none():
    assert measure("probe-transfer", NEVER, reference=NEVER).mean == 0.0


def test_rows_are_drawn_in_pairs():
    value = measured("probe-transfer", NOW, NOW).value
    assert value.interval == (0.0, 0.0)


def test_lonely_rows_are_said_and_nothing_to_ask_is_not_measurable():
    more = {name: {**of, "e": None} for name, of in NOW.items()}
    assert "1 rows are the only one" in measure("probe-transfer", more, reference=NEVER).note
    nothing = {name: dict.fromkeys(of) for name, of in NOW.items()}
    assert "fewer than two topics" in measure("probe-transfer", nothing, reference=NEVER).note
    assert "none was given" in measure("probe-transfer", NOW).note


def test_other_rows_are_refused():
    less = {name: {"a": of["a"]} for name, of in NEVER.items()}
    with pytest.raises(ExpungeError, match="E-DATA-013"):
        measure("probe-transfer", NOW, reference=less)
