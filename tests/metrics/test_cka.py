"""CKA erasure: weights, clips, which estimate, and what real models give."""

import pytest

from expunge.core.measuring import measured
from expunge.testing.metrics import measure


def scores(now, start, *, fair=None, fair_start=None, tokens=9.0):
    layers = lambda values: {f"layer-{n}": value for n, value in enumerate(values)}  # noqa: E731
    return {
        "cka": layers(now),
        "original:cka": layers(start),
        "cka_debiased": layers(fair or now),
        "original:cka_debiased": layers(fair_start or start),
        "tokens_per_dimension": layers([tokens] * len(now)),
    }


def test_closed_forms():
    # e = .5 and 1/3, weights .2 and .6
    value = measure("cka", scores([0.9, 0.6], [0.8, 0.4]))
    assert value.mean == pytest.approx((0.2 * 0.5 + 0.6 / 3) / 0.8)
    assert value.per_row == pytest.approx({"layer-0": 0.5, "layer-1": 1 / 3})
    assert value.beside["weight"] == pytest.approx({"layer-0": 0.2, "layer-1": 0.6})
    assert value.parts == pytest.approx({"to_reference": 0.75, "original_to_reference": 0.6})


def test_the_reference_has_all_and_the_original_nothing():
    assert measure("cka", scores([1.0, 1.0], [0.8, 0.4])).mean == 1.0
    assert measure("cka", scores([0.8, 0.4], [0.8, 0.4])).mean == 0.0


def test_a_model_that_went_elsewhere_has_nothing_and_not_less():
    value = measure("cka", scores([0.1, 1.0], [0.8, 0.4]))
    assert value.per_row == {"layer-0": 0.0, "layer-1": 1.0}


def test_a_layer_that_never_differed_has_no_weight():
    value = measure("cka", scores([0.2, 0.7], [1.0, 0.4]))
    assert value.mean == pytest.approx(0.5)
    assert measure("cka", scores([0.2], [1.0])).note.startswith("not measurable: original and ref")


@pytest.mark.parametrize(
    ("estimator", "tokens", "expected"),
    [
        ("auto", 3.9, 0.25),
        ("auto", 4.0, 0.5),
        ("plain", 1.0, 0.5),
        ("debiased", 99.0, 0.25),
    ],
)
def test_few_tokens_for_the_width_take_the_debiased_estimate(estimator, tokens, expected):
    given = scores([0.9], [0.8], fair=[0.4], fair_start=[0.2], tokens=tokens)
    value = measure("cka", given, estimator=estimator)
    assert value.mean == pytest.approx(expected)
    assert f"debiased estimate in {int(expected < 0.5)} of 1" in value.note


def test_a_debiased_estimate_beyond_its_bounds_is_clipped():
    assert measure("cka", scores([1.02], [-0.1], tokens=1.0)).mean == 1.0


def test_the_interval_comes_from_layers_with_their_weights():
    found = measured("cka", scores([0.9, 0.6], [0.8, 0.4])).value
    low, high = found.interval
    assert (low, high) == pytest.approx((1 / 3, 0.5))


def test_without_readings_it_says_what_is_missing():
    value = measure("cka", {})
    assert value.mean is None
    assert "the retrained reference" in value.note
