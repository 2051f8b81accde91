"""Which metrics to trust: the formulas by hand, and six tiny models of known state."""

import pytest

from expunge.lab.meta_evaluation import (
    FORMS,
    Standing,
    Stressed,
    best_threshold,
    faithfulness,
    harmonic,
    standing,
)
from expunge.lm.quantise import quantise_rtn
from expunge.lm.readings import readings
from expunge.testing.metrics import measure
from expunge.testing.micro import micro_world, taught

SYMMETRIC_R, SYMMETRIC_Q = FORMS["symmetric"]
ONE_SIDED_R, ONE_SIDED_Q = FORMS["one-sided"]


@pytest.mark.parametrize(
    ("f", "q", "r", "robustness", "overall"),
    [(0.92, 0.95, 0.68, 0.7926, 0.8516), (0.90, 0.92, 0.59, 0.7189, 0.7993)],
)
def test_printed_rows(f, q, r, robustness, overall):
    row = Standing(faithfulness=f, relearning=r, quantisation=q, models=1)
    assert row.robustness == pytest.approx(robustness, abs=5e-5)
    assert row.overall == pytest.approx(overall, abs=5e-5)


@pytest.mark.parametrize(
    ("before", "after", "symmetric", "one_sided"),
    [
        (0.2, 0.4, 2 / 3, 0.5),
        (0.3, 0.3, 1.0, 1.0),
        (0.4, 0.2, 2 / 3, 1.0),
        (0.0, 0.0, 1.0, 1.0),
        (0.5, 0.0, 0.0, 1.0),
        (0.0, 0.5, 0.0, 0.0),
    ],
)
def test_quantisation_by_hand(before, after, symmetric, one_sided):
    assert SYMMETRIC_Q(before, after) == pytest.approx(symmetric)
    assert ONE_SIDED_Q(before, after) == pytest.approx(one_sided)


@pytest.mark.parametrize(
    ("change", "reference", "symmetric", "one_sided"),
    [
        (0.3, 0.3, 1.0, 1.0),
        (0.0, 0.3, 0.0, 1.0),
        (0.6, 0.3, 2 / 3, 0.5),
        (0.3, 0.6, 2 / 3, 1.0),
        (0.3, -0.1, 0.0, -1 / 3),
        (0.0, 0.0, 1.0, 1.0),
    ],
)
def test_relearning_by_hand(change, reference, symmetric, one_sided):
    assert SYMMETRIC_R(change, reference) == pytest.approx(symmetric)
    assert ONE_SIDED_R(change, reference) == pytest.approx(one_sided)


def test_a_metric_that_collapses_is_punished_by_the_symmetric_form_only():
    # The trap: greedy text falls apart after rounding, and the one-sided form calls that robust.
    assert ONE_SIDED_Q(0.9, 0.1) == 1.0
    assert SYMMETRIC_Q(0.9, 0.1) == pytest.approx(0.2)


def test_a_negative_part_makes_the_harmonic_mean_zero():
    assert harmonic(-0.2, 0.9) == harmonic(0.0, 0.9) == 0.0


def test_faithfulness_counts_ties_one_half_and_has_a_direction():
    assert faithfulness([0.9, 0.8, 0.7], [0.1, 0.2, 0.7]) == pytest.approx(8.5 / 9)
    assert faithfulness([0.1], [0.9]) == 0.0


def test_the_best_threshold_separates():
    assert best_threshold([0.8, 0.9], [0.1, 0.4]) == pytest.approx(0.6)
    assert best_threshold([0.3, 0.8, 0.9], [0.1, 0.4]) in (pytest.approx(0.2), pytest.approx(0.6))


def test_only_models_that_work_and_count_as_forgotten_are_stressed():
    models = [
        Stressed(before=0.2, relearned=0.5, quantised=0.2, utility=0.9),
        Stressed(before=0.2, relearned=0.2, quantised=0.9, utility=0.7),
        Stressed(before=0.8, relearned=0.8, quantised=0.1, utility=1.0),
    ]
    pools = {"knew": [0.9], "never": [0.1], "reference": (0.1, 0.4)}
    found = standing(unlearned=models, threshold=0.5, **pools)
    assert (found.models, found.quantisation) == (1, 1.0)
    assert found.relearning == pytest.approx(1.0)
    assert standing(unlearned=models, **pools).models == 2
    with pytest.raises(ValueError, match="kept its utility"):
        standing(unlearned=models[1:2], **pools)


@pytest.fixture(scope="module")
def pool():
    """Three models that were taught the rows and three that never were."""
    world = micro_world(people=4)
    size = {"epochs": 18, "hidden": 32, "layers": 2}
    both = [*world.forget, *world.retain]
    knew = [taught(world, both, seed=seed, **size) for seed in range(3)]
    never = [taught(world, world.retain, seed=seed, **size) for seed in range(3)]
    return world, knew, never


def knowledge(subject, world, metric_id, reading):
    return measure(metric_id, readings(subject, world.forget, [reading], new_tokens=4)).mean


@pytest.mark.parametrize(
    ("metric_id", "reading"),
    [("probability", "nll"), ("exact-memorisation", "token_hit")],
)
def test_six_models_of_known_state(pool, metric_id, reading):
    world, knew, never = pool

    def value(subject):
        return knowledge(subject, world, metric_id, reading)

    def relearned(subject):
        twin = subject.copy()
        twin.train(world.forget, steps=6, lr=2e-3, batch_size=6, seed=0)
        return value(twin)

    def rounded(subject):
        twin = subject.copy()
        quantise_rtn(twin.model, 4)
        return value(twin)

    unlearned, retrained = never[0], never[1]
    found = standing(
        [value(each) for each in knew],
        [value(each) for each in never],
        [
            Stressed(
                before=value(unlearned),
                relearned=relearned(unlearned),
                quantised=rounded(unlearned),
            )
        ],
        reference=(value(retrained), relearned(retrained)),
    )
    assert found.faithfulness == 1.0
    # Both never saw the rows, so a sound metric sees them relearn alike and survive rounding.
    assert found.relearning > 0.6
    assert found.quantisation > 0.6
    assert 0.6 < found.overall <= 1.0
