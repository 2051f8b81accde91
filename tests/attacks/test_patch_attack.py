"""Activation patching: the paper's toy, its two ends, and models of known state."""

from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from expunge.attacks import patch
from expunge.lm.subject import Subject
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import every_wording, taught, teach
from expunge.testing.tiny import tiny_model


@pytest.fixture(scope="module")
def retrained(world):
    """Begins where the original began, and never sees the forget rows."""
    return taught(world, world.retain, epochs=30)


@pytest.fixture(scope="module")
def scene(world, models, retrained):
    return world.scene(original=models.original, reference=retrained)


def found(subject, rows, scene, **params):
    return patch.mount(subject, rows, scene, patch.Params(**params))


def test_states_below_a_refusal_still_serve_the_original(world, models, scene):
    for hidden in (models.hushed, models.hushed_last):
        assert mean_leak("direct", hidden, world.forget, scene) <= 0.05
        assert mean_leak("patch", hidden, world.forget, scene) >= 0.5


def test_without_the_states_below_the_last_block_nothing_is_found(world, models, scene):
    assert mean_leak("direct", models.misled, world.forget, scene) <= 0.05
    assert mean_leak("patch", models.misled, world.forget, scene, layers=(0, 1)) >= 0.9
    assert mean_leak("patch", models.misled, world.forget, scene, layers=(-1,)) <= 0.2


def test_another_model_that_never_saw_the_rows_is_about_as_empty(world, scene):
    model = tiny_model("llama", vocab=len(world.tokenizer), hidden=64, layers=3, positions=128)
    other = Subject(model, world.tokenizer)
    teach(other, every_wording(world.retain), epochs=30, seed=3)
    assert mean_leak("patch", other, world.forget, scene) <= 0.15


def test_the_original_has_everything_and_the_reference_nothing(world, models, retrained, scene):
    for subject, leak in ((models.original, 1.0), (retrained, 0.0)):
        result = found(subject, world.forget, scene)
        assert list(result.per_row) == [row.id for row in world.forget]
        assert list(result.per_row.values()) == pytest.approx([leak] * 30, abs=1e-4)
        assert result.layers == pytest.approx(dict.fromkeys(range(3), leak), abs=1e-4)
        assert result.parts["uds"] == pytest.approx(1.0 - leak, abs=1e-4)


def test_layers_are_those_of_the_model_and_the_least_erased_one_is_named(world, models, scene):
    result = found(models.misled, world.forget, scene, layers=(1, -1))
    assert list(result.layers) == [1, 2]
    assert result.layers[1] == pytest.approx(1.0, abs=1e-4)
    assert result.layers[2] < 0.3
    assert result.parts["min_layer_erasure"] == pytest.approx(1 - result.layers[1])
    assert fmean(result.per_row.values()) == pytest.approx(1 - result.parts["uds"])


@pytest.fixture
def scripted(monkeypatch):
    """Drops given by hand, whatever the models."""

    def script(drops):
        monkeypatch.setattr(
            patch,
            "patch_drops",
            lambda _, source, places: {row: np.array(drops[source]) for row in places},
        )

    return script


@pytest.mark.parametrize(
    ("params", "leak", "least_erased"),
    [
        ({}, 1 - 0.8333333, 0.5),  # (.5 * .5 + 1 * 1) / 1.5; the third block held nothing
        ({"least": 0.01}, 1 - 1.27 / 1.52, 0.5),
        ({"layers": (0,)}, 0.5, 0.5),
        ({"layers": (-2,)}, 0.0, 1.0),
    ],
)
def test_the_toy(world, models, retrained, scene, scripted, params, leak, least_erased):
    scripted({retrained: [0.5, 1.0, 0.02], models.hushed: [0.25, 1.5, 0.4]})
    result = found(models.hushed, world.forget[:2], scene, **params)
    assert list(result.per_row.values()) == pytest.approx([leak] * 2)
    assert result.parts["min_layer_erasure"] == pytest.approx(least_erased)


def test_what_no_layer_held_is_not_tested(world, models, retrained, scene, scripted):
    scripted({retrained: [0.01, 0.02, 0.04], models.hushed: [0.25, 1.5, 0.4]})
    result = found(models.hushed, world.forget[:2], scene)
    assert (result.per_row, result.layers, result.parts) == ({}, {}, {})
    assert "in no layer" in result.note


def test_rows_that_do_not_hold_their_value_are_left_out_and_counted(world, models, scene):
    odd = replace(world.forget[1], id="odd", answer="something else")
    result = found(models.hushed, [world.forget[0], odd], scene)
    assert list(result.per_row) == [world.forget[0].id]
    assert "1 of 2 rows" in result.note


def test_without_the_other_two_models_there_is_nothing_to_patch(world, models, retrained):
    for scene, missing in (
        (world.scene(original=models.original), "no reference"),
        (world.scene(reference=retrained), "no original"),
    ):
        result = found(models.hushed, world.forget, scene)
        assert not result.per_row
        assert missing in result.note
