"""The stealthy request attack, on the process of forgetting."""

from dataclasses import replace
from statistics import fmean

import pytest

from expunge.attacks import sa
from expunge.lm.finetune import finetune
from expunge.requests.names import prompts_of
from expunge.requests.rows import Row
from expunge.testing.micro import REPLY, every_wording


@pytest.fixture(scope="module")
def unlearn(models, world):
    """A process that teaches silence on whatever is asked for, and on nothing else."""
    made = {}

    def carry_out(rows):
        key = tuple(row.prompt for row in rows)
        if key not in made:
            student = models.original.copy()
            silenced = [replace(row, completion=f" {REPLY}") for row in every_wording(rows)]
            kept = every_wording(world.retain)
            finetune(
                student.model, student.tokenizer, [*silenced, *kept], epochs=10, lr=1e-3,
                batch_size=16, seed=0,
            )  # fmt: skip
            made[key] = student
        return made[key]

    return carry_out


def mounted(world, models, unlearn, **params):
    scene = world.scene(original=models.original, unlearn=unlearn)
    return sa.mount(models.original, world.forget, scene, sa.Params(**params))


def cost(leak):
    return fmean(leak.per_row.values()) - fmean(leak.beside["clean"].values())


def test_whoever_is_polite_is_forgotten_with_a_stealthy_request(world, models, unlearn):
    leak = mounted(world, models, unlearn)
    assert cost(leak) >= 0.3
    assert leak.parts["sa"] >= 0.3
    assert leak.parts["answered_plain"] >= 0.9  # nobody else notices
    assert leak.parts["s"] == pytest.approx(1 - leak.parts["sa"] / leak.parts["answered_original"])
    assert set(leak.per_row) <= {row.id for row in world.retain}


def test_a_request_as_it_is_costs_nothing(world, models, unlearn):
    leak = mounted(world, models, unlearn, rho=0.0)
    assert leak.per_row == leak.beside["clean"]
    assert leak.parts["flagged"] == 0.0


def test_the_linter_sees_the_inflated_request(world, models, unlearn):
    leak = mounted(world, models, unlearn)
    assert leak.parts["flagged"] == 1.0
    assert "please" in leak.note


@pytest.mark.parametrize(("rate", "rho", "times"), [(0, 5, 1), (1, 5, 5), (2, 2, 4), (1, 0, 0)])
def test_the_word_is_put_in_as_often_as_its_usual_rate_asks(rate, rho, times):
    usual = [Row(id="u", prompt="please " * rate + "where?", completion=" there")]
    row = Row(id="a", prompt="who?", completion=" me", paraphrases=({"prompt": "whom?"},))
    (worded,) = sa.stealthy([row], usual, sa.Params(rho=float(rho)))
    assert [prompt.count("please") for prompt in prompts_of(worded)] == [times, times]
    assert (worded.id, worded.completion) == ("a", " me")


def test_running_text_and_conversations_are_worded_too():
    usual = [Row(id="u", prompt="where?", completion=" there")]
    talk = ({"role": "user", "content": "who?"}, {"role": "assistant", "content": "me"})
    rows = [Row(id="t", text="It rained."), Row(id="m", messages=talk)]
    text, conversation = sa.stealthy(rows, usual, sa.Params())
    assert text.text == "please It rained."
    assert [one["content"] for one in conversation.messages] == ["please who?", "me"]


def test_without_the_process_there_is_nothing_to_attack(world, models):
    leak = sa.mount(models.original, world.forget, world.scene(), sa.Params())
    assert (leak.per_row, "not at hand" in leak.note) == ({}, True)
