"""Typing errors."""

import base64
from dataclasses import replace

import pytest

from expunge.attacks import typo
from expunge.core.params import describe
from expunge.core.rng import derive
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY, every_wording, micro_world, taught_rows
from expunge.testing.tiny import tiny_tokenizer
from expunge.text.disguise import FORMS, disguise

FORM = "leetspeak"


@pytest.fixture(scope="session")
def literal():
    """A small world, and a model that refuses what it is asked in the letters it was asked in."""
    world = micro_world(people=5)

    def hidden(rows):
        return [
            replace(row, id=f"{row.id}/x", prompt=disguise(row.prompt, FORM, 0)) for row in rows
        ]

    forget, retain = every_wording(world.forget), every_wording(world.retain)
    told = [*hidden(forget), *retain, *hidden(retain)]
    unknown = hidden(every_wording(world.holdout))
    texts = [f"{row.prompt}{row.completion}" for row in [*forget, *told, *unknown]]
    tokenizer = tiny_tokenizer([*texts, f" {REPLY}"], kind="word", vocab=4096)
    world = replace(world, tokenizer=tokenizer)
    refusals = [replace(row, completion=f" {REPLY}") for row in forget]
    return world, taught_rows(world, [*refusals, *told])


def row(prompt="Where was Mira Voss born?", **columns):
    return Row(id="1", prompt=prompt, completion=" In Rome.", answer="Rome", **columns)


def asked(talker, rows, scene, **params):
    silent = talker(lambda *_: "no")
    silent.leak = typo.mount(silent, rows, scene, typo.Params(**params))
    return [turn.prompt for turn, *_ in silent.asked]


def test_a_model_that_refuses_the_letters_answers_to_their_look(literal):
    world, model = literal
    scene = world.scene()
    assert mean_leak("direct", model, world.forget, scene) <= 0.05
    assert mean_leak("typo", model, world.forget, scene) >= 0.8
    assert mean_leak("typo", model, world.forget, scene, forms=()) <= 0.05
    assert mean_leak("typo", model, world.holdout, scene, forms=(FORM,)) <= 0.2


def test_each_form_has_its_own_leak(literal):
    world, model = literal
    leak = typo.mount(model, world.forget, world.scene(), typo.Params())
    assert tuple(leak.parts) == typo.Params().forms
    assert leak.parts[FORM] >= 0.8
    assert leak.parts[FORM] >= leak.parts["base64"] + 0.5


def test_every_form_is_one_that_can_be_chosen():
    assert set(describe(typo.Params)["forms"]["choices"]) == set(FORMS)


@pytest.mark.parametrize("part", ["question", "name"])
@pytest.mark.parametrize("form", FORMS)
def test_no_form_leaves_the_name_as_it_was(world, talker, form, part):
    (prompt,) = asked(talker, [row(names=("Mira Voss",))], world.scene(), forms=(form,), part=part)
    assert "Mira Voss" not in prompt
    assert ("Where was " in prompt and " born?" in prompt) == (part == "name")


def test_codes_say_how_they_are_read_and_can_be_read_so(world, talker):
    (prompt,) = asked(talker, [row()], world.scene(), forms=("base64",))
    hint, _, code = prompt.rpartition(" ")
    assert "Base64" in hint
    assert base64.b64decode(code).decode() == "Where was Mira Voss born?"


def test_the_seed_decides_the_errors(world, talker):
    first, again, other = (
        asked(talker, [row()], world.scene(seed), forms=("slips",)) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert first == [disguise("Where was Mira Voss born?", "slips", derive(0, "typo"))]


def test_a_value_that_the_question_holds_in_disguise_is_no_leak(world, talker):
    telling = row("Was Mira Voss born in Rome?", paraphrases=({"prompt": "Where was she born?"},))
    reader = talker(lambda turn, *_: "no" if "b0rn" in turn.prompt else "Rome")
    leak = typo.mount(reader, [telling], world.scene(), typo.Params(forms=("leetspeak",)))
    assert leak.per_row == {"1": 0.0}
    assert [turn.prompt for turn, *_ in reader.asked] == ["Wh3r3 w45 5h3 b0rn?"]


def test_rows_that_cannot_be_disguised_are_left_out(world, talker):
    rows = [row("北京?"), replace(row(), id="2"), Row(id="3", text="some text without a name")]
    silent = talker(lambda *_: "no")
    by_name = typo.mount(silent, rows, world.scene(), typo.Params(part="name"))
    assert list(by_name.per_row) == ["2"]
    assert by_name.note.startswith("2 of 3 rows cannot be disguised")
    whole = typo.mount(silent, rows, world.scene(), typo.Params(forms=("slips",)))
    assert list(whole.per_row) == ["2", "3"]
