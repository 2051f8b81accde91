"""RESTOR recovery: the ratio, its ends, and where there is none."""

import pytest

from expunge.testing.metrics import measure


def recovery(clean, corrupted, unlearned):
    parts = {"clean": clean, "corrupted": corrupted, "unlearned": unlearned}
    return measure("restor-recovery", {"parts": parts})


@pytest.mark.parametrize(
    ("clean", "corrupted", "unlearned", "expected"),
    [(0.9, 0.3, 0.6, 0.5), (0.9, 0.3, 0.9, 1.0), (0.9, 0.3, 0.3, 0.0), (0.8, 0.4, 0.2, -0.5),
     (0.5, 0.25, 0.75, 2.0)],
)  # fmt: skip
def test_closed_forms(clean, corrupted, unlearned, expected):
    assert recovery(clean, corrupted, unlearned).mean == pytest.approx(expected)


def test_a_corruption_without_effect_leaves_nothing_to_recover():
    value = recovery(0.4, 0.4, 0.4)
    assert value.mean is None
    assert "equally accurate" in value.note


def test_a_corruption_that_helped_is_said():
    value = recovery(0.2, 0.6, 0.4)
    assert value.mean == pytest.approx(0.5)
    assert "more accurate" in value.note


@pytest.mark.parametrize("missing", ["clean", "corrupted", "unlearned"])
def test_each_of_the_three_models_is_needed(missing):
    parts = {"clean": 0.9, "corrupted": 0.3, "unlearned": 0.6, missing: None}
    value = measure("restor-recovery", {"parts": parts})
    assert value.mean is None
    assert missing in value.note
