"""PCA shift: the mean over layers, beside the similarity."""

import pytest

from expunge.testing.metrics import measure


def test_it_is_the_mean_over_layers():
    given = {"pca_shift": {"layer-0": 1.0, "layer-1": 4.0}}
    given["pca_similarity"] = {"layer-0": 1.0, "layer-1": 0.4}
    value = measure("pca-shift", given)
    assert value.mean == 2.5
    assert value.per_row == given["pca_shift"]
    assert value.parts["similarity"] == pytest.approx(0.7)
    assert value.note == "rows are layers"


def test_a_layer_without_directions_is_left_out_and_said():
    given = {"pca_shift": {"layer-0": 1.0, "layer-1": 4.0}, "pca_similarity": {"layer-1": 0.4}}
    value = measure("pca-shift", given)
    assert value.mean == 4.0
    assert "1 of 2 rows have no pca_shift and pca_similarity" in value.note


def test_without_readings_it_cannot_be_measured():
    assert measure("pca-shift", {}).note.startswith("not measurable")
