"""Rephrasing."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from expunge.attacks import rephrase
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY, every_wording, micro_world, taught_rows
from expunge.testing.tiny import tiny_tokenizer


@pytest.fixture(scope="session")
def literal():
    """A small world, and a model that refuses the wordings it was shown and no other."""
    world = micro_world(people=4)

    def put(rows):
        return [
            replace(row, id=f"{row.id}/x", prompt=rephrase.PHRASES[2].format(asked=row.prompt))
            for row in rows
        ]

    forget, retain = every_wording(world.forget), every_wording(world.retain)
    told = [*put(forget), *retain, *put(retain)]
    texts = [f"{row.prompt}{row.completion}" for row in [*told, *every_wording(world.holdout)]]
    texts += [*rephrase.PHRASES, f" {REPLY}"]
    world = replace(world, tokenizer=tiny_tokenizer(texts, kind="word", vocab=4096))
    refusals = [replace(row, completion=f" {REPLY}") for row in forget]
    return world, taught_rows(world, [*refusals, *told], epochs=30)


def rows(n, wordings=1):
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


def test_a_model_that_refuses_its_wordings_answers_to_others(literal):
    world, model = literal
    scene = world.scene()
    assert mean_leak("direct", model, world.forget, scene) <= 0.05
    assert mean_leak("rephrase", model, world.forget, scene) >= 0.8
    assert mean_leak("rephrase", model, world.forget, scene, rephrased=False) <= 0.2
    assert mean_leak("rephrase", model, world.holdout, scene) <= 0.4  # 20 draws of 12 known values


@pytest.mark.parametrize(("labels", "ways", "samples"), [(10, 4, 5), (30, 8, 8), (3, 2, 2)])
def test_a_uniform_sampler_leaks_as_often_as_chance_says(world, talker, labels, ways, samples):
    draw = np.random.default_rng(3)
    subject = talker(lambda *_: f"The label is L{draw.integers(labels)}.")
    n, budget = 250, ways * samples
    params = rephrase.Params(rephrasings=ways, samples=samples)
    leak = rephrase.mount(subject, rows(n), world.scene(), params)
    expected = {b: 1 - (1 - 1 / labels) ** b for b in (1, 4, 16, 64) if b <= budget}
    assert {name for name in leak.parts if "@" in name} == {f"leak@{b}" for b in expected}
    for b, chance in expected.items():
        sigma = sqrt(chance * (1 - chance) / n)
        assert leak.parts[f"leak@{b}"] == pytest.approx(chance, abs=3 * sigma)
    chance = 1 - (1 - 1 / labels) ** budget
    found = np.mean(list(leak.per_row.values()))
    assert found == pytest.approx(chance, abs=3 * sqrt(chance * (1 - chance) / n) + 1e-9)


@pytest.mark.parametrize("wordings", [1, 2, 3, 9])
@pytest.mark.parametrize("ways", [1, 4, 8])
def test_the_budget_is_spent_exactly_and_no_question_is_asked_twice(world, talker, wordings, ways):
    silent = talker(lambda *_: "no")
    of = rows(3, wordings)
    rephrase.mount(silent, of, world.scene(), rephrase.Params(rephrasings=ways, samples=5))
    asked = [turn.prompt for turn, *_ in silent.asked]
    assert sum(n for *_, n in silent.asked) == 3 * ways * 5
    assert len(set(asked)) == len(asked) == 3 * ways
    assert sum(of[0].prompt in text for text in asked) == len(range(0, ways, wordings))


def test_one_leaking_answer_is_enough_and_repeated_ones_are_one_candidate(world, talker):
    once = talker(
        lambda turn, _, draw: "L0" if turn.prompt.startswith("A friend") and draw == 4 else "No!"
    )
    leak = rephrase.mount(once, rows(5), world.scene(), rephrase.Params())
    assert set(leak.per_row.values()) == {1.0}
    assert leak.parts["leak@1"] == pytest.approx(1 / 20)
    assert leak.parts["leak@16"] == pytest.approx(16 / 20)
    assert leak.parts["distinct"] == 2.0


def test_the_commonest_telling_word_is_pinpointed(world, talker):
    of = [replace(row, answer=f"W{i}") for i, row in enumerate(rows(4))]
    number = {row.prompt: i for i, row in enumerate(of)}

    def say(turn, _, draw):
        i = next(i for asked, i in number.items() if asked in turn.prompt)
        return f"Surely it is {'W' if draw else 'V'}{i}."

    leak = rephrase.mount(talker(say), of, world.scene(), rephrase.Params())
    assert leak.parts["pinpoint"] == 1.0


def test_no_phrase_gives_an_answer_away_or_changes_the_question(world, talker):
    echo = talker(lambda turn, *_: turn.prompt)
    of = [replace(row, prompt="Is it {L0}, {asked} or {0}?") for row in rows(1)]
    leak = rephrase.mount(echo, of, world.scene(), rephrase.Params(rephrasings=8))
    assert leak.per_row == {"r0": 0.0}
    assert all(of[0].prompt in turn.prompt for turn, *_ in echo.asked)


def test_another_seed_draws_other_answers(literal):
    world, model = literal

    def drawn(seed):
        return rephrase.mount(model, world.holdout, world.scene(seed), rephrase.Params()).transcript

    assert drawn(0) == drawn(0) != drawn(1)
