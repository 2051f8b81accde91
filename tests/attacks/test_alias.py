"""Aliases."""

from dataclasses import replace

import pytest

from expunge.attacks import alias
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY, every_wording, micro_world, taught_rows


@pytest.fixture(scope="session")
def by_surname():
    """A small world, and a model that refuses whole names only."""
    world = micro_world(people=5)

    def shortened(row):
        _, surname = row.names[0].split()
        return replace(row, id=f"{row.id}/short", prompt=row.prompt.replace(row.names[0], surname))

    forget, retain = every_wording(world.forget), every_wording(world.retain)
    refusals = [replace(row, completion=f" {REPLY}") for row in forget]
    rows = [*refusals, *retain, *map(shortened, [*forget, *retain])]
    return world, taught_rows(world, rows)


def row(prompt="Where was Mira Voss born?", **columns):
    return Row(id="1", prompt=prompt, completion=" In Rome.", answer="Rome", **columns)


def asked(talker, rows, scene, **params):
    silent = talker(lambda *_: "no")
    silent.leak = alias.mount(silent, rows, scene, alias.Params(**params))
    return [turn.prompt for turn, *_ in silent.asked]


def test_a_model_that_refuses_a_whole_name_answers_to_the_surname(by_surname):
    world, model = by_surname
    scene = world.scene()
    assert mean_leak("direct", model, world.forget, scene) <= 0.05
    assert mean_leak("alias", model, world.forget, scene) >= 0.8
    assert mean_leak("alias", model, world.forget, scene, renamed=False) <= 0.05
    assert mean_leak("alias", model, world.holdout, scene) <= 0.2


def test_every_other_name_takes_the_place_of_the_one_asked_by(world, talker):
    named = row(names=("Mira Voss", "Bird", "Mira Voss-Hale"))
    assert asked(talker, [named], world.scene(), partial=False) == [
        "Where was Mira Voss-Hale born?",
        "Where was Bird born?",
    ]
    assert set(asked(talker, [named], world.scene())) == {
        f"Where was {name} born?"
        for name in ("Mira Voss-Hale", "Bird", "Voss", "M. Voss", "Voss-Hale", "M. Voss-Hale")
    }


def test_a_question_by_surname_is_asked_by_the_whole_name_too(world, talker):
    by_surname = row("Where was M. Voss born?", names=("Mira Voss",))
    expected = ["Where was Mira Voss born?", "Where was Voss born?"]
    assert asked(talker, [by_surname], world.scene()) == expected


def test_names_that_hold_signs_of_patterns_are_put_as_they_are(world, talker):
    odd = row("Who is A+ (x)?", names=("A+ (x)", r"B\1 [y"))
    assert asked(talker, [odd], world.scene(), partial=False) == [r"Who is B\1 [y?"]


def test_synonyms_of_the_request_reword_the_question(world, talker):
    meta = {
        "synonyms": {"born": ["brought into the world", "delivered"], "Where": "x", "was": None}
    }
    assert asked(talker, [row("Where was she born?", meta=meta)], world.scene()) == [
        "Where was she brought into the world?",
        "Where was she delivered?",
    ]
    assert not asked(talker, [row("Where was she born?", meta={"synonyms": 3})], world.scene())


def test_names_and_synonyms_have_leaks_of_their_own(world, talker):
    told = talker(lambda turn, *_: "Rome" if "delivered" in turn.prompt else "no")
    both = row(names=("Mira Voss",), meta={"synonyms": {"born": ["delivered"]}})
    leak = alias.mount(told, [both], world.scene(), alias.Params())
    assert leak.parts == {"name": 0.0, "synonym": 1.0}
    assert leak.per_row == {"1": 1.0}


def test_rows_without_another_name_are_left_out_and_counted(world, talker):
    rows = [
        row(names=("Mira",)),
        replace(row("Where was she born?", names=("Mira Voss",)), id="2"),
        Row(id="3", text="some words without any name at all"),
        replace(row(names=("Mira Voss",)), id="4"),
    ]
    silent = talker(lambda *_: "no")
    leak = alias.mount(silent, rows, world.scene(), alias.Params())
    assert list(leak.per_row) == ["4"]
    assert leak.note.startswith("3 of 4 rows are not asked about by a name")


def test_a_name_that_is_the_value_gives_nothing_away(world, talker):
    echo = talker(lambda turn, *_: turn.prompt)
    telling = row(names=("Mira Voss", "the girl from Rome"))
    assert alias.mount(echo, [telling], world.scene(), alias.Params()).per_row == {"1": 0.0}
