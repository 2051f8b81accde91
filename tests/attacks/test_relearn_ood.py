"""Relearning out of domain: only rows to be kept are taught."""

from dataclasses import replace

from expunge.attacks import relearn_ood
from expunge.lm.subject import Subject
from expunge.testing.attacks import mean_leak


def test_a_refusal_in_the_last_block_wears_off_by_training_on_other_rows(world, models):
    scene = world.scene()
    assert mean_leak("relearn-ood", models.hushed_last, world.forget, scene, steps=150) >= 0.5
    assert mean_leak("relearn-ood", models.hushed_last, world.forget, scene, steps=0) <= 0.05


def test_facts_that_were_never_trained_do_not_appear(world, models):
    assert mean_leak("relearn-ood", models.hushed_last, world.holdout, world.scene()) <= 0.1


def test_only_retain_rows_are_taught_and_all_rows_are_tested(world, models, monkeypatch):
    lessons = []

    def train(subject, rows, **_):
        lessons.append(list(rows))

    monkeypatch.setattr(Subject, "train", train)
    leak = relearn_ood.mount(models.hushed_last, world.forget, world.scene(), relearn_ood.Params())
    assert lessons == [list(world.retain)]
    assert set(leak.per_row) == {row.id for row in world.forget}


def test_without_retain_rows_it_is_not_run(world, models):
    scene = replace(world.scene(), retain=())
    leak = relearn_ood.mount(models.hushed, world.forget, scene, relearn_ood.Params())
    assert not leak.per_row
    assert "no retain rows" in leak.note
