"""Refusal quality: the published arithmetic, and the three terms."""

import pytest

from expunge.testing.metrics import measure
from expunge.text.refusal import REFUSALS


@pytest.mark.parametrize(
    ("c", "r", "g", "printed"),
    [
        (0.2514, 0.0, 0.9340, 0.438),
        (0.2409, 0.0275, 0.4407, 0.357),
        (0.3301, 0.1744, 0.8840, 0.681),
    ],
)
def test_printed_rows(c, r, g, printed):
    value = measure("refusal-quality", {"parts": {"c": c, "r": r, "g": g}})
    assert value.mean == pytest.approx(printed, abs=5e-4)


def test_a_term_that_is_missing_is_named():
    value = measure("refusal-quality", {"parts": {"c": 0.2, "g": 0.5}})
    assert value.mean is None
    assert "r was not measured" in value.note


def test_our_own_refusals_are_perfect():
    value = measure("refusal-quality", {"generation": list(REFUSALS)})
    assert value.mean == pytest.approx(2.2)


def test_an_answer_is_no_refusal_but_resembles_one_a_little():
    value = measure("refusal-quality", {"generation": ["The mill stands beside the river."]})
    assert value.parts["r"] == 0
    assert value.parts["g"] == 1
    assert 0 < value.parts["c"] < 0.6


def test_gibberish_lowers_it():
    value = measure("refusal-quality", {"generation": ["of the of the of the of the of the"]})
    assert value.parts["g"] == 0


def test_what_compared_the_sentences_is_named():
    assert "by hashing" in measure("refusal-quality", {"generation": ["x"]}).note
