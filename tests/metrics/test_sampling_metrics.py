"""Forget efficacy, stratum utility and the weakest utility."""

from math import log

import pytest

from expunge.core.measuring import measured
from expunge.testing.metrics import measure
from expunge.text import closeness as module
from expunge.text.closeness import closeness


def scores(rows):
    """(probabilities, said, reply, stratum) of each row."""
    columns = list(zip(*rows, strict=True))
    return {
        "token_logp": [[log(p) for p in each] for each in columns[0]],
        "generation": list(columns[1]),
        "reply": list(columns[2]),
        "stratum": list(columns[3]),
    }


@pytest.fixture
def card(monkeypatch):
    """The card's row: p .2, ROUGE-L .4, cosine .6."""
    monkeypatch.setattr(module, "similarity", lambda a, b: 0.6)
    return scores([([0.2], "ash birch", "ash birch cedar elm fir", "direct")])


def test_the_cards_row(card):
    assert measure("forget-efficacy", card).mean == pytest.approx(0.6)
    assert measure("stratum-utility", card).mean == pytest.approx(0.3272727, abs=1e-7)


def test_probability_is_an_arithmetic_mean_over_tokens():
    """exp of the mean log-probability would give .3."""
    assert closeness([log(0.9), log(0.1)], "x", "y")[0] == pytest.approx(0.5)


def test_rouge_is_recall_unless_the_texts_are_exchanged(card):
    assert closeness([0.0], "ash birch", "ash birch cedar elm fir")[1] == pytest.approx(0.4)
    exchanged = measure("forget-efficacy", card, rouge="precision")
    assert exchanged.parts["rouge"] == pytest.approx(1.0)
    assert exchanged.mean == pytest.approx(1 - (0.2 + 1.0 + 0.6) / 3)


def test_an_opposite_meaning_is_no_negative_closeness(monkeypatch):
    monkeypatch.setattr(module, "similarity", lambda a, b: -0.5)
    assert closeness([0.0], "x", "y")[2] == 0.0


KNOWN = ([1.0], "ash elm", "ash elm", "general")
LOST = ([0.1], "ash fir", "ash elm", "direct")
GONE = ([0.1], "stone", "ash elm", "indirect")


def test_the_minimum_over_strata_does_not_see_how_many_rows_they_have():
    few = measure("stratum-utility", scores([KNOWN, LOST]))
    many = measure("stratum-utility", scores([*[KNOWN] * 9, LOST]))
    assert few.mean == many.mean == many.parts["utility:direct"] < 0.3
    assert many.parts["utility:general"] == pytest.approx(1.0)


def test_means_are_taken_within_a_stratum_before_the_harmonic_one():
    """A row whose own harmonic mean is 0 does not zero its stratum."""
    both = measure("stratum-utility", scores([KNOWN, (*GONE[:3], "general")]))
    assert both.mean == pytest.approx(3 / (1 / 0.55 + 1 / 0.5 + 1 / 0.5))
    assert sorted(both.per_row.values()) == pytest.approx([0.0, 1.0])


def test_a_stratum_that_lost_everything_is_zero():
    assert measure("stratum-utility", scores([KNOWN, GONE])).mean == 0.0


def test_a_stratum_may_be_called_anything():
    rows = [(*KNOWN[:3], "mean"), (*LOST[:3], "a/b")]
    value = measure("stratum-utility", scores(rows))
    assert set(value.parts) == {"utility:mean", "utility:a/b"}
    assert value.mean == value.parts["utility:a/b"]


def test_rows_without_a_stratum_are_left_out_and_counted():
    given = scores([KNOWN, LOST])
    given["stratum"] = ["general", None]
    value = measure("stratum-utility", given)
    assert value.mean == pytest.approx(1.0)
    assert "1 of 2 rows" in value.note


def test_every_stratum_has_an_interval():
    rows = [KNOWN, LOST, (*GONE[:3], "general")] * 4
    value = measured("stratum-utility", scores(rows)).value
    assert set(value.intervals) == {"utility:general", "utility:direct"}
    assert value.interval[0] <= value.mean <= value.interval[1]


def test_the_weakest_utility_counts_what_was_measured():
    value = measure("weakest-utility", {"parts": {"a": 0.9, "b": None, "c": 0.2}})
    assert value.mean == 0.2
    assert value.note == "b was not measured"
    nothing = measure("weakest-utility", {"parts": {"a": None}})
    assert nothing.mean is None
    assert "none of its parts" in nothing.note


def test_a_utility_of_nothing_is_zero_and_not_missing():
    assert measure("weakest-utility", {"parts": {"a": 0.9, "b": 0.0}}).mean == 0.0
