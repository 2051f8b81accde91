"""Fisher erasure: surprise that is back, weighed by how much there was to forget."""

import pytest

from expunge.core.errors import ExpungeError
from expunge.testing.metrics import measure

START = {"layer-0": 0.1, "layer-1": 0.0}
NEVER = {"fisher": {"layer-0": 0.5, "layer-1": 0.2}}


def erased(now, start=START, reference=NEVER):
    return measure("fisher-overlap", {"fisher": now, "original:fisher": start}, reference=reference)


def test_closed_forms():
    # excess of the original .4 and .2; of this model .1 and .2
    value = erased({"layer-0": 0.4, "layer-1": 0.0})
    assert value.per_row == pytest.approx({"layer-0": 0.75, "layer-1": 0.0})
    assert value.mean == pytest.approx((0.4 * 0.75) / 0.6)
    assert erased(NEVER["fisher"]).mean == 1.0
    assert erased(START).mean == 0.0


def test_more_surprise_than_the_reference_is_all_and_less_than_the_original_nothing():
    assert erased({"layer-0": 9.0, "layer-1": 9.0}).mean == 1.0
    assert erased({"layer-0": 0.0, "layer-1": 0.0}).mean == 0.0


def test_a_layer_in_which_the_reference_is_no_more_surprised_has_no_weight():
    value = erased({"layer-0": 0.1, "layer-1": 0.2}, {"layer-0": 0.6, "layer-1": 0.0})
    assert value.mean == 1.0
    nothing = erased(START, NEVER["fisher"])
    assert "no more surprised" in nothing.note


def test_small_values_of_large_models_count_like_others():
    tiny = lambda values: {layer: 1e-10 * value for layer, value in values.items()}  # noqa: E731
    value = erased(
        tiny({"layer-0": 0.4, "layer-1": 0.0}), tiny(START), {"fisher": tiny(NEVER["fisher"])}
    )
    assert value.mean == pytest.approx(0.5)


def test_what_is_missing_is_said_and_other_layers_are_refused():
    assert "none was given" in erased(START, reference=None).note
    assert erased({}).note.startswith("not measurable")
    with pytest.raises(ExpungeError, match="E-DATA-013"):
        erased(START, reference={"fisher": {"layer-0": 0.5}})


def test_gradients_that_are_no_numbers_are_not_measurable():
    scores = {"fisher": {"l": float("nan")}, "original:fisher": {"l": 0.1}}
    value = measure("fisher-overlap", scores, reference={"fisher": {"l": 0.5}})
    assert value.mean is None
    assert "not numbers" in value.note
