"""Model utility: the harmonic mean, and zeros that say where they come from."""

import pytest

from expunge.testing.metrics import measure


def test_closed_form():
    assert measure("model-utility", {"parts": [0.5, 1, 0.25]}).mean == pytest.approx(3 / 7)


def test_published_parts_give_the_published_number():
    parts = {
        "retain.prob": 0.9895272273969067,
        "retain.rouge": 0.9856545937933034,
        "retain.truth_ratio": 0.47469858801063747,
        "real_authors.prob": 0.45548207783762884,
        "real_authors.rouge": 0.9329999999999999,
        "real_authors.truth_ratio": 0.5962289157077105,
        "world_facts.prob": 0.41856180755948974,
        "world_facts.rouge": 0.8824786324786325,
        "world_facts.truth_ratio": 0.5390328416393139,
    }
    value = measure("model-utility", {"parts": parts})
    assert value.mean == pytest.approx(0.6226773637427152, abs=1e-12)
    assert value.parts == parts


def test_a_zero_part_makes_it_zero_and_is_named():
    value = measure("model-utility", {"parts": {"retain.prob": 0.9, "world_facts.rouge": 0.0}})
    assert value.mean == 0
    assert value.note == "0 because world_facts.rouge is 0"


def test_a_part_that_was_not_measured_is_not_left_out_silently():
    value = measure("model-utility", {"parts": {"retain.prob": 0.9, "world_facts.rouge": None}})
    assert value.mean is None
    assert "world_facts.rouge" in value.note
