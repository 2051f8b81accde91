"""Unlearning depth: the toy of the paper, its ends, and what it refuses."""

import pytest

from expunge.core.errors import ExpungeError
from expunge.testing.metrics import measure

NEVER = {"patch_drop": {"a": [0.5, 1.0, 0.02], "b": [0.0, 2.0, 0.0]}}


def depth(now, reference=NEVER, **params):
    return measure("unlearning-depth", {"patch_drop": now}, reference=reference, **params)


def test_the_toy():
    value = depth({"a": [0.25, 1.5, 0.4], "b": [5.0, 0.5, 5.0]})
    assert value.per_row == pytest.approx({"a": 0.8333333, "b": 0.25})
    assert value.mean == pytest.approx((0.8333333 + 0.25) / 2)


def test_the_reference_is_one_and_the_original_nothing():
    assert depth(NEVER["patch_drop"]).mean == 1.0
    assert depth({"a": [0.0] * 3, "b": [0.0] * 3}).mean == 0.0


def test_the_threshold_decides_which_layers_count():
    now = {"a": [0.25, 1.5, 0.4], "b": [5.0, 0.5, 5.0]}
    # with .01, the third layer of a counts too: (.25 + 1 + .02) / 1.52
    assert depth(now, threshold=0.01).per_row["a"] == pytest.approx(1.27 / 1.52)
    assert depth(now, threshold=0.6).per_row["a"] == 1.0


def test_the_reference_itself_has_no_value():
    value = depth(NEVER["patch_drop"], reference=None)
    assert value.mean is None
    assert "retrained reference" in value.note


def test_knowledge_that_no_layer_held_cannot_be_gone():
    value = depth({"a": [1.0]}, {"patch_drop": {"a": [0.05]}})
    assert value.mean is None
    assert "the original does not know these rows, or the reference still does" in value.note


def test_shuffled_rows_give_the_same_and_missing_ones_are_refused():
    now = {"a": [0.25, 1.5, 0.4], "b": [5.0, 0.5, 5.0]}
    assert depth(dict(reversed(now.items()))).mean == pytest.approx(depth(now).mean)
    with pytest.raises(ExpungeError, match="E-DATA-013"):
        depth({"a": now["a"]})


def test_a_drop_that_is_no_number_is_not_measurable():
    nan = float("nan")
    for now, expected in (([nan, 0.5], [0.5, 1.0]), ([0.5, 0.5], [nan, 1.0])):
        value = measure(
            "unlearning-depth",
            {"patch_drop": {"a": now}},
            reference={"patch_drop": {"a": expected}},
        )
        assert value.mean is None
        assert "not a number (a)" in value.note
