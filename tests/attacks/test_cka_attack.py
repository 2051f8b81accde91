"""CKA erasure: by hand, at its two ends, in folds, and on models of known state."""

from statistics import fmean

import numpy as np
import pytest

from expunge.attacks import cka
from expunge.lm.subject import Subject
from expunge.numbers import geometry
from expunge.numbers.erasure import by_weight
from expunge.requests.rows import Row
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
    return cka.mount(subject, rows, scene, cka.Params(**params))


def test_a_model_that_only_hides_keeps_the_shape_of_the_original(world, models, retrained, scene):
    for hidden in (models.hushed, models.misled):
        assert mean_leak("direct", hidden, world.forget, scene) <= 0.05
        assert mean_leak("cka", hidden, world.forget, scene) >= 0.8
        lead = mean_leak("cka", hidden, world.forget, scene, paired=False) - mean_leak(
            "cka", retrained, world.forget, scene, paired=False
        )
        assert abs(lead) <= 0.05


def test_another_retrained_model_is_nearer_but_not_there_which_is_why_it_never_decides(
    world, scene
):
    model = tiny_model("llama", vocab=len(world.tokenizer), hidden=64, layers=3, positions=128)
    other = Subject(model, world.tokenizer)
    teach(other, every_wording(world.retain), epochs=30, seed=3)
    leak = mean_leak("cka", other, world.forget, scene)
    assert 0.1 <= leak <= 0.5
    assert cka.CARD["decides"] is False


def test_the_original_has_everything_and_the_reference_nothing(world, models, retrained, scene):
    for subject, leak in ((models.original, 1.0), (retrained, 0.0)):
        result = found(subject, world.forget, scene)
        assert list(result.per_row) == [row.id for row in world.forget]
        assert list(result.per_row.values()) == pytest.approx([leak] * 30, abs=1e-5)
        assert result.layers == pytest.approx(dict.fromkeys(range(3), leak), abs=1e-5)


def test_only_a_changed_block_moves(world, models, scene):
    result = found(models.hushed_last, world.forget, scene, tokens="answer")
    assert result.layers[0] == pytest.approx(1.0, abs=1e-5)
    assert result.layers[1] == pytest.approx(1.0, abs=1e-5)
    assert result.layers[2] < 0.98
    top = found(models.hushed_last, world.forget, scene, tokens="answer", layers=(-1,))
    assert top.layers == pytest.approx({2: result.layers[2]})


def test_what_is_left_by_hand():
    left, weights = cka._left(np.array([0.9, 0.6]), np.array([0.8, 0.4]))
    assert 1.0 - by_weight(left, weights) == pytest.approx(0.375)  # (.2 * .5 + .6 / 3) / .8
    now, start = np.array([0.1, 1.2, 0.7, np.nan]), np.array([0.5, 0.5, 1.0, 0.5])
    left, weights = cka._left(now, start)
    assert left[:2].tolist() == [1.0, 0.0]
    assert weights.tolist() == [0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("tokens", "estimator", "measure"),
    [
        (7, "auto", geometry.debiased_cka),
        (8, "auto", geometry.cka),
        (7, "plain", geometry.cka),
        (8, "debiased", geometry.debiased_cka),
    ],
)
def test_few_tokens_for_each_dimension_take_the_debiased_estimate(tokens, estimator, measure):
    draw = np.random.default_rng(0)
    u, o, r = ({3: {"a": draw.normal(size=(tokens, 2))}} for _ in range(3))
    ((now, start),) = cka._likeness([u, o, r], [3], ["a"], cka.Params(estimator=estimator), 0)
    assert (now, start) == (measure(u[3]["a"], r[3]["a"]), measure(o[3]["a"], r[3]["a"]))


@pytest.mark.parametrize(
    ("tokens", "params", "sizes"),
    [
        (1, {}, [30]),
        (3, {}, [30]),
        (5, {}, [15, 15]),
        (5, {"folds": 1}, [30]),
        (30, {"folds": 4}, [8, 8, 7, 7]),
        (5, {"fold_tokens": 50}, [10, 10, 10]),
    ],
)
def test_folds_hold_enough_tokens_and_every_row_once(tokens, params, sizes):
    counts = {f"r{at}": tokens for at in range(30)}
    folds = cka._dealt(counts, cka.Params(**params), 0)
    assert [len(fold) for fold in folds] == sizes
    assert sorted(row for fold in folds for row in fold) == sorted(counts)
    backwards = dict(reversed(counts.items()))
    assert cka._dealt(backwards, cka.Params(**params), 0) == folds


def test_every_row_has_the_value_of_its_fold(world, models, scene):
    result = found(models.hushed, world.forget, scene, fold_tokens=8)
    assert result.parts["folds"] == 5
    assert len(set(result.per_row.values())) == 5
    assert 0.5 <= fmean(result.per_row.values()) <= 1.0
    whole = found(models.hushed, world.forget, scene)
    assert (whole.parts["folds"], len(set(whole.per_row.values()))) == (1, 1)


def test_rows_of_which_the_original_knows_as_little_as_the_reference_have_no_value(
    world, retrained
):
    result = found(retrained, world.forget, world.scene(original=retrained, reference=retrained))
    assert (result.per_row, result.layers) == ({}, {})
    assert "30 of 30 rows have the same states" in result.note


def test_without_the_other_two_models_there_is_nothing_to_compare_with(world, models):
    result = found(models.hushed, world.forget, world.scene())
    assert not result.per_row
    assert result.note == "no original and no reference to compare with"


def test_running_text_is_compared_over_its_second_half(world, models, scene):
    texts = [
        Row.parse({"id": row.id, "text": f"{row.prompt}{row.completion}"}) for row in world.forget
    ]
    result = found(models.hushed, texts, scene)
    assert list(result.per_row) == [row.id for row in world.forget]
    assert result.parts["folds"] > 1
