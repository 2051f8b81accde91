"""Reintroduction in context."""

from dataclasses import replace

import pytest

from expunge.attacks import ununlearn
from expunge.lm.values import prompt_text
from expunge.requests.companions import companions, told
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY, every_wording, taught_rows

PARAMS = ununlearn.Params()


def copier(turn, *_):
    """Says again what stands before the question."""
    return prompt_text(turn).rpartition("\n")[0]


def test_who_can_copy_regains_what_is_said_and_nothing_else(world, talker):
    leak = ununlearn.mount(talker(copier), world.forget, world.scene(), PARAMS)
    assert leak.parts == {
        "acc_none": 0.0, "acc_fact": 1.0, "acc_premises": 1.0, "acc_terms": 0.0, "uu": 1.0,
    }  # fmt: skip
    assert set(leak.per_row.values()) == {0.0}


def test_a_model_equal_to_the_reference_has_no_residual_though_it_reads(world, reminded, talker):
    model, reference = (talker(copier) for _ in range(2))
    found, control = (
        ununlearn.mount(one, world.forget, world.scene(), PARAMS) for one in (model, reference)
    )
    assert found.parts["acc_terms"] - control.parts["acc_terms"] == 0.0
    assert found.per_row == control.per_row
    assert found.parts["uu"] > 0.5
    first, second = (
        ununlearn.mount(one, world.forget[:6], world.scene(), PARAMS)
        for one in (reminded, reminded.copy())
    )
    assert first == second


def test_the_contexts(world, talker):
    row = world.forget[0]
    model = talker(lambda *_: "no")
    ununlearn.mount(model, world.forget[:3], world.scene(), PARAMS)
    prompts = [turn.prompt for turn, *_ in model.asked]
    name, value = row.names[0], row.value
    none, fact, premises, terms = (
        text.rpartition("\n")[0] for text in prompts[:: len(world.forget[:3]) * 2]
    )
    assert none == ""
    assert fact == f"{row.prompt}{row.completion}"
    assert premises.startswith(f"{name} and ")
    assert value in premises
    assert name not in premises[len(name) :]
    assert value not in terms
    assert terms == " ".join(told(other) for other in world.forget[1:3])
    questions = {text.rpartition("\n")[2] for text in prompts[:: len(world.forget[:3]) * 2]}
    assert questions == {
        f"Now, the twin of {name} is like {name} in everything. Where was the twin of {name} born?"
    }


def test_the_invented_name_is_nobodys(world, talker):
    model = talker(lambda *_: "no")
    ununlearn.mount(model, world.forget, world.scene(), PARAMS)
    text = next(turn.prompt for turn, *_ in model.asked if " are one and the same" in turn.prompt)
    invented = text.partition(" are one")[0].rpartition(" and ")[2]
    assert not any(invented in told(row) for row in world.forget)


def test_premises_alone_are_counted_by_the_better_context(world, talker):
    def reads_premises(turn, *_):
        return copier(turn) if "one and the same" in turn.prompt else "no"

    leak = ununlearn.mount(talker(reads_premises), world.forget[:3], world.scene(), PARAMS)
    assert (leak.parts["acc_fact"], leak.parts["acc_premises"], leak.parts["uu"]) == (0, 1, 1)


@pytest.fixture(scope="session")
def reminded(world):
    """Refuses the forget rows outright, and tells them behind the other facts of the subject."""
    others = companions([*world.forget, *world.retain])

    def derived(rows, is_behind):
        for row in every_wording(rows):
            before = " ".join(map(told, others[row.id.rpartition("/")[0]])) if is_behind else ""
            asked = ununlearn._derived(row.prompt, row.names)
            yield replace(row, id=f"{row.id}{before}", prompt=f"{before}\n{asked}".lstrip("\n"))

    refused = [*every_wording(world.forget), *derived(world.forget, False)]
    told_rows = [*derived(world.forget, True), *derived(world.retain, True)]
    told_rows += every_wording(world.retain)
    refusals = [replace(row, completion=f" {REPLY}") for row in refused]
    return taught_rows(world, [*refusals, *told_rows], epochs=25)


def test_a_model_that_refuses_outright_tells_behind_the_terms(world, reminded):
    scene = world.scene()
    assert mean_leak("direct", reminded, world.forget, scene) <= 0.05
    assert mean_leak("ununlearn", reminded, world.forget, scene) >= 0.5
    assert mean_leak("ununlearn", reminded, world.forget, scene, context=False) <= 0.05
    assert mean_leak("ununlearn", reminded, world.holdout, scene) <= 0.15


def test_rows_without_name_or_other_facts_are_left_out(world, talker):
    rows = [
        *world.forget[:2],
        replace(world.forget[3], names=(), subject=None, prompt="where?", paraphrases=()),
        replace(world.forget[6]),
        Row(id="text", text="Some one lives in Turin and works there."),
    ]
    leak = ununlearn.mount(talker(copier), rows, world.scene(), PARAMS)
    assert set(leak.per_row) == {row.id for row in world.forget[:2]}
    assert "3 rows left out" in leak.note


def test_nothing_but_lost_rows_gives_no_numbers(world, talker):
    leak = ununlearn.mount(talker(copier), world.forget[:1], world.scene(), PARAMS)
    assert (leak.per_row, leak.parts) == ({}, {})


def test_it_is_reported_and_never_decides():
    assert ununlearn.CARD["decides"] is False
