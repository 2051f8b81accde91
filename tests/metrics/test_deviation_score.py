"""Deviation score: the distance from forgetting all and keeping all."""

import numpy as np
import pytest

from expunge.metrics import deviation_score
from expunge.testing.metrics import measure


def scores(said, kept):
    return {
        "generation": said,
        "reply": ["one two three four five"] * len(said),
        "retain.generation": kept,
        "retain.reply": ["one two three four five six seven eight nine ten"] * len(kept),
    }


def test_closed_form_of_the_paper():
    numbers = deviation_score.aggregate(
        np.array([0.1, 0.3]), {"retain": np.array([0.9])}, deviation_score.Params()
    )
    assert numbers["mean"] == pytest.approx(22.360679775)


def test_from_texts():
    value = measure("deviation-score", scores(["one x", "nothing"], ["one two three four five"]))
    assert value.parts["forget"] == pytest.approx(0.1)
    assert value.parts["retain"] == pytest.approx(0.5)
    assert value.mean == pytest.approx(100 * np.hypot(0.1, 0.5))


def test_the_corners():
    whole, ten = "one two three four five", "one two three four five six seven eight nine ten"
    assert measure("deviation-score", scores(["x"], [ten])).mean == 0
    assert measure("deviation-score", scores([whole], ["x"])).mean == pytest.approx(141.4213562)


def test_silence_is_rewarded_and_said():
    value = measure("deviation-score", scores(["", "one"], ["one"]))
    assert value.parts["empty"] == 0.5
    assert "50% of the forget answers are empty" in value.note


def test_without_retain_rows_it_is_not_measurable():
    only = {"generation": ["x"], "reply": ["y"]}
    assert "retain.generation" in measure("deviation-score", only).note


def test_the_statistic_can_be_chosen():
    said = scores(["one x y z"], ["one"])
    assert measure("deviation-score", said, statistic="precision").parts["forget"] == 0.25


def test_rows_without_an_answer_are_counted():
    scores = {
        "generation": {"a": "wax", "b": None},
        "reply": {"a": "wax", "b": "tin"},
        "retain.generation": {"c": "oat"},
        "retain.reply": {"c": "oat"},
    }
    assert "1 of 2 rows have no generation and reply" in measure("deviation-score", scores).note
