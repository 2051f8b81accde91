"""Relearning in domain: taught facts are never the tested ones."""

import pytest

from expunge.attacks import relearn_in
from expunge.lm.relearn import attack_rate, split_facts
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak


def test_a_refuser_returns_to_facts_it_was_not_taught(world, models):
    scene = world.scene()
    assert mean_leak("relearn-in", models.hushed, world.forget, scene) >= 0.5
    assert mean_leak("relearn-in", models.hushed, world.forget, scene, steps=0) <= 0.05


def test_facts_that_were_never_trained_do_not_return(world, models):
    assert mean_leak("relearn-in", models.hushed, world.holdout, world.scene()) <= 0.1


def test_the_curve_runs_over_the_grid_and_ends_with_the_leak(world, models):
    leak = relearn_in.mount(models.hushed, world.forget, world.scene(), relearn_in.Params(steps=30))
    assert sorted(leak.curve) == [0, 5, 10, 20, 30]
    assert leak.curve[30] == pytest.approx(sum(leak.per_row.values()) / len(leak.per_row))
    assert leak.curve[0] < leak.curve[30]


def test_a_fifth_is_taught_and_the_rest_tested(world, models):
    leak = relearn_in.mount(models.hushed, world.forget, world.scene(), relearn_in.Params(steps=1))
    assert leak.parts["taught"] == 6
    assert len(leak.per_row) == len(world.forget) - 6


def test_a_lesson_that_destroys_the_model_is_invalid(world, models):
    params = relearn_in.Params(lr=0.3, steps=20)
    leak = relearn_in.mount(models.hushed, world.forget, world.scene(), params)
    assert "destroyed" in leak.invalid
    assert leak.parts["retain_after"] < leak.parts["retain_before"] - 0.2


def facts(n, **more):
    return [
        Row.parse({"id": f"r{i}", "prompt": f"q{i}", "completion": f" V{i}.", "answer": f"V{i}"})
        for i in range(n)
    ]


@pytest.mark.parametrize(("n", "taught"), [(100, 20), (30, 6), (12, 5), (6, 5)])
def test_the_split_takes_a_share_but_at_least_some(n, taught):
    lesson, tested = split_facts(facts(n), share=0.2, least=5, seed=3)
    assert (len(lesson), len(tested)) == (taught, n - taught)
    assert not {row.id for row in lesson} & {row.id for row in tested}


def test_no_fact_is_on_both_sides_and_the_order_of_rows_does_not_matter():
    rows = [*facts(20), *(Row.parse({**r.as_dict(), "id": f"{r.id}b"}) for r in facts(20))]
    lesson, tested = split_facts(rows, share=0.2, least=5, seed=0)
    assert not {row.value for row in lesson} & {row.value for row in tested}
    again, _ = split_facts(rows[::-1], share=0.2, least=5, seed=0)
    assert {row.id for row in again} == {row.id for row in lesson}
    other, _ = split_facts(rows, share=0.2, least=5, seed=1)
    assert {row.id for row in other} != {row.id for row in lesson}


def test_too_few_facts_are_not_split(world, models):
    leak = relearn_in.mount(models.hushed, facts(5), world.scene(), relearn_in.Params())
    assert not leak.per_row
    assert "too few" in leak.note


@pytest.mark.parametrize(
    ("size", "rate"),
    [(1e6, 3e-4), (0.5e9, 3e-4), (0.5e9 * 2**0.5, (3e-4 * 5e-5) ** 0.5), (1e9, 5e-5), (7e9, 5e-5)],
)
def test_the_rate_falls_with_the_size_of_the_model(size, rate):
    class Sized:
        def parameters(self):
            return [self]

        def numel(self):
            return int(size)

    subject = type("Stub", (), {"model": Sized()})
    assert attack_rate(subject) == pytest.approx(rate, rel=1e-6)
