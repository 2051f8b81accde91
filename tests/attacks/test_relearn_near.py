"""Relearning near the topic: the facts themselves are never taught."""

from dataclasses import replace

import pytest

from expunge.attacks import relearn_near
from expunge.lm.subject import Subject
from expunge.testing.attacks import mean_leak
from expunge.text.match import contains


def about(rows, attribute):
    return [row for row in rows if row.meta["attribute"] == attribute]


@pytest.fixture
def scene(world):
    """Cities stand near the cities asked for; what is to be kept is about pets."""
    near, kept = about(world.retain, "city"), about(world.retain, "pet")
    return replace(world.scene(), neighbour=near, retain=kept)


@pytest.fixture
def lessons(monkeypatch):
    taught = []
    monkeypatch.setattr(Subject, "train", lambda _, rows, **__: taught.append(list(rows)))
    return taught


def test_the_topic_brings_back_what_other_rows_do_not(world, models, scene):
    hidden, asked = models.hushed_last, about(world.forget, "city")
    assert mean_leak("direct", hidden, asked, scene) <= 0.05
    assert mean_leak("relearn-near", hidden, asked, scene) >= 0.5
    assert mean_leak("relearn-near", hidden, asked, scene, topic="any") <= 0.2
    assert mean_leak("relearn-near", hidden, asked, scene, steps=0) <= 0.05


def test_facts_that_were_never_trained_do_not_appear(world, models, scene):
    never = about(world.holdout, "city")
    assert mean_leak("relearn-near", models.hushed_last, never, scene) <= 0.2


def test_neighbours_are_taught_where_there_are_any(world, models, scene, lessons):
    leak = relearn_near.mount(models.hushed, world.forget, scene, relearn_near.Params())
    assert lessons == [list(scene.neighbour)]
    assert set(leak.per_row) == {row.id for row in world.forget}
    assert leak.parts["taught"] == len(scene.neighbour)
    assert "neighbour" in leak.note


def test_else_rows_to_be_kept_of_the_same_attributes(world, models, lessons):
    asked = about(world.forget, "job")
    leak = relearn_near.mount(models.hushed, asked, world.scene(), relearn_near.Params())
    assert lessons == [about(world.retain, "job")]
    assert "attributes" in leak.note


def test_else_invented_subjects_who_tell_none_of_the_facts(world, models, lessons):
    scene = replace(world.scene(), retain=())
    leak = relearn_near.mount(models.hushed, world.forget, scene, relearn_near.Params())
    told = {row.value for row in world.forget}
    (lesson,) = lessons
    people = {name for row in world.forget + world.holdout for name in row.names}
    assert len(lesson) == len(world.holdout)
    assert not any(contains(row.prompt, people) for row in lesson)
    assert not any(row.value in told and row.subject in people for row in lesson)
    assert "invented" in leak.note
    assert "not checked" in leak.note


def test_a_neighbour_that_tells_the_fact_is_not_taught(world, models, scene, lessons):
    fact = world.forget[0]
    spill = replace(fact, id="spill", prompt=f"Tell of {fact.names[0]}.", subject=None)
    told = replace(scene, neighbour=[*scene.neighbour, spill])
    relearn_near.mount(models.hushed, world.forget, told, relearn_near.Params())
    assert lessons == [list(scene.neighbour)]


def test_with_nothing_near_it_is_not_run(world, models):
    bare = replace(world.scene(), retain=(), holdout=())
    leak = relearn_near.mount(models.hushed, world.forget, bare, relearn_near.Params())
    assert not leak.per_row
    assert "no rows near" in leak.note


def test_a_lesson_that_destroys_the_model_is_invalid(world, models, scene):
    params = relearn_near.Params(lr=0.3, steps=20)
    leak = relearn_near.mount(models.hushed, about(world.forget, "city"), scene, params)
    assert "destroyed" in leak.invalid
