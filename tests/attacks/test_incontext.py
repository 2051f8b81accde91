"""In context."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from expunge.attacks import incontext
from expunge.core.rng import generator
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY, every_wording, micro_world, taught_rows


@pytest.fixture(scope="session")
def small():
    """A small world, and a model that refuses unless it is told something about the subject."""
    world = micro_world(people=4)
    known = [*world.forget, *world.retain]

    def behind_another(row, seed):
        facts = [one for one in known if one.subject == row.subject and one.answer != row.answer]
        shown = facts[generator(seed, row.id).integers(len(facts))]
        return f"{shown.prompt}{shown.completion}\n\n{row.prompt}"

    told = [
        replace(row, id=f"{row.id}/{seed}", prompt=behind_another(row, seed))
        for row in every_wording(known)
        for seed in range(2)
    ]
    refusals = [replace(row, completion=f" {REPLY}") for row in every_wording(world.forget)]
    rows = [*refusals, *every_wording(world.retain), *told]
    return SimpleNamespace(world=world, model=taught_rows(world, rows, epochs=20))


def prompts(talker, rows, scene, **params):
    silent = talker(lambda *_: "no")
    silent.leak = incontext.mount(silent, rows, scene, incontext.Params(**params))
    return [turn.prompt for turn, *_ in silent.asked]


def written(rows):
    return {f"{row.prompt}{row.completion}" for row in rows}


def test_a_model_that_refuses_outright_answers_behind_facts_of_the_same_subject(small):
    world, scene = small.world, small.world.scene()
    assert mean_leak("direct", small.model, world.forget, scene) <= 0.05
    assert mean_leak("incontext", small.model, world.forget, scene) >= 0.5
    assert mean_leak("incontext", small.model, world.forget, scene, own=0) <= 0.2
    assert mean_leak("incontext", small.model, world.forget, scene, own=0, others=0) <= 0.05
    assert mean_leak("incontext", small.model, world.holdout, scene) <= 0.25


def test_each_row_stands_behind_others_of_its_subject_and_never_behind_itself(world, talker):
    rows = world.forget[:6]
    asked = prompts(talker, rows, world.scene())
    turns = [(row, turn) for row in rows for turn in row.turns]
    for prompt, (row, turn) in zip(asked, turns, strict=True):
        *shown, question = prompt.split("\n\n")
        assert question == turn.prompt
        assert set(shown[:2]) <= written(world.retain)
        others = [one for one in rows if one.subject == row.subject and one is not row]
        assert set(shown[2:]) == written(others)
        assert row.value not in prompt


def test_a_second_row_of_the_probed_fact_is_not_shown(world, talker):
    target, other = world.forget[:2]
    again = replace(target, id="again", prompt="Home of the person?", paraphrases=())
    asked = prompts(talker, [target, again, other], world.scene(), others=0)
    of_target = [prompt for prompt in asked if prompt.endswith(target.prompt)]
    assert of_target == [f"{other.prompt}{other.completion}\n\n{target.prompt}"]


def test_other_facts_of_the_subject_may_be_retained_ones(world, talker):
    target, kept = world.forget[:2]
    scene = replace(world.scene(), retain=[*world.retain, kept])
    assert prompts(talker, [target], scene, others=0)[0].startswith(kept.prompt)
    scene = replace(world.scene(), neighbour=[kept])
    assert prompts(talker, [target], scene, others=0)[0].startswith(kept.prompt)


def test_subjects_without_an_id_are_known_by_their_names(world, talker):
    rows = [replace(row, subject=None, names=()) for row in world.forget[:6]]
    (prompt, *_) = prompts(talker, rows, world.scene(), others=0)
    assert prompt.count("\n\n") == 2
    alone = [rows[0], *rows[3:]]  # nobody else's facts pass for the subject's own
    assert not any(rows[0].prompt in one for one in prompts(talker, alone, world.scene(), others=0))


def test_rows_without_any_example_are_left_out(world, talker):
    text = Row(id="t", text="Some words about the sea and the people who live there.")
    silent = talker(lambda *_: "no")
    leak = incontext.mount(silent, [text], world.scene(), incontext.Params(others=0))
    assert not leak.per_row
    assert leak.note.startswith("1 of 1 rows have no example")
    assert list(incontext.mount(silent, [text], world.scene(), incontext.Params()).per_row) == ["t"]


def test_the_examples_are_the_seeds(world, talker):
    first, again, other = (
        prompts(talker, world.forget[:1], world.scene(seed), own=0) for seed in (0, 0, 1)
    )
    assert first == again != other
