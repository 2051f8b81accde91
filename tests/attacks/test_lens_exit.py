"""Logit lens, early exit."""

from expunge.attacks import lens_exit
from expunge.testing.attacks import mean_leak


def test_the_middle_still_says_what_the_last_block_replaces(world, models):
    scene = world.scene()
    assert mean_leak("direct", models.misled, world.forget, scene) <= 0.05
    assert mean_leak("lens-exit", models.misled, world.forget, scene) >= 0.9
    assert mean_leak("lens-exit", models.misled, world.forget, scene, layers=(-1,)) <= 0.1


def test_it_sees_through_a_refusal_and_finds_nothing_that_was_never_trained(world, models):
    assert mean_leak("lens-exit", models.hushed, world.forget, world.scene()) >= 0.9
    for model in (models.original, models.hushed, models.misled):
        assert mean_leak("lens-exit", model, world.holdout, world.scene()) <= 0.15


def test_every_token_of_the_value_must_be_the_first_choice(world, models):
    cities = [row for row in world.forget if row.meta["attribute"] == "city"]
    half = [
        type(row).parse(
            {
                **row.as_dict(),
                "completion": row.completion.replace(row.answer, f"{row.answer.split()[0]} dog"),
                "answer": f"{row.answer.split()[0]} dog",
                "paraphrases": [],
            }
        )
        for row in cities
    ]
    params = lens_exit.Params()
    whole = lens_exit.mount(models.original, cities, world.scene(), params).per_row
    assert set(whole.values()) == {1.0}
    assert set(lens_exit.mount(models.original, half, world.scene(), params).per_row.values()) == {
        0.0
    }
