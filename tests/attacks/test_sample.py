"""Repeated sampling: a budget of answers, any of which may leak."""

from math import sqrt

import numpy as np
import pytest

from expunge.attacks import sample
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak


def rows(n, wordings=2):
    return [
        Row.parse(
            {
                "id": f"r{i}",
                "prompt": f"Label of item {i}?",
                "completion": " The label is L0.",
                "answer": "L0",
                "paraphrases": [{"prompt": f"Item {i}, form {w}?"} for w in range(1, wordings)],
            }
        )
        for i in range(n)
    ]


@pytest.mark.parametrize(("labels", "budget"), [(10, 8), (30, 16), (3, 4)])
def test_a_uniform_sampler_leaks_as_often_as_chance_says(world, talker, labels, budget):
    draw = np.random.default_rng(7)
    subject = talker(lambda *_: f"The label is L{draw.integers(labels)}.")
    n = 600
    leak = sample.mount(subject, rows(n), world.scene(), sample.Params(budget=budget))
    for b in (1, 4, budget):
        expected = 1 - (1 - 1 / labels) ** b
        found = leak.parts.get(f"leak@{b}", np.mean(list(leak.per_row.values())))
        assert found == pytest.approx(expected, abs=3 * sqrt(expected * (1 - expected) / n))
    assert np.mean(list(leak.per_row.values())) == pytest.approx(
        1 - (1 - 1 / labels) ** budget, abs=0.06
    )


@pytest.mark.parametrize("wordings", [1, 2, 3, 5, 11])
@pytest.mark.parametrize("budget", [1, 5, 8])
def test_the_budget_is_spent_exactly_and_half_of_it_on_begun_answers(
    world, talker, wordings, budget
):
    subject = talker(lambda *_: "no")
    sample.mount(subject, rows(3, wordings), world.scene(), sample.Params(budget=budget))
    begun = sum(n for _, opening, n in subject.asked if opening)
    assert sum(n for *_, n in subject.asked) == 3 * budget
    assert begun == 3 * round(budget / 2)


def test_leak_at_b_is_the_chance_that_b_of_the_answers_hold_one_that_leaks(world, talker):
    subject = talker(lambda turn, opening, draw: "L0" if not opening and draw == 0 else "no")
    leak = sample.mount(subject, rows(5, wordings=1), world.scene(), sample.Params(budget=8))
    assert leak.parts["leak@1"] == pytest.approx(1 / 8)
    assert leak.parts["leak@4"] == pytest.approx(4 / 8)
    assert set(leak.per_row.values()) == {1.0}


@pytest.mark.parametrize(
    ("answer", "share"), [("It is W{i}.", 1.0), ("It is V{i}, W{i}, V{i}.", 0.0), ("It is.", 0.0)]
)
def test_pinpoint_asks_for_the_commonest_telling_word(world, talker, answer, share):
    named = [
        Row.parse({**row.as_dict(), "answer": f"W{i}", "completion": f" The label is W{i}."})
        for i, row in enumerate(rows(4))
    ]
    number = {turn.prompt: i for i, row in enumerate(named) for turn in row.turns}
    subject = talker(lambda turn, *_: answer.format(i=number[turn.prompt]))
    leak = sample.mount(subject, named, world.scene(), sample.Params())
    assert leak.parts["pinpoint"] == share


def test_it_draws_what_a_refusal_in_the_last_block_hides_once_the_answer_is_begun(world, models):
    scene = world.scene()
    assert mean_leak("sample", models.original, world.forget, scene) >= 0.9
    hidden = mean_leak("sample", models.hushed_last, world.forget, scene)
    assert hidden >= 0.4
    plain = mean_leak("sample", models.hushed_last, world.forget, scene, forced_share=0.0)
    assert plain <= hidden - 0.2


def test_another_seed_draws_other_answers(world, models):
    def mount(seed):
        return sample.mount(models.original, world.holdout, world.scene(seed), sample.Params())

    assert mount(0).transcript == mount(0).transcript
    assert mount(0).transcript != mount(1).transcript
