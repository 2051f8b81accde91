"""Role play."""

from dataclasses import replace

import pytest

from expunge.attacks import role
from expunge.lm.elicit import plain
from expunge.testing.attacks import mean_leak

GRANDMOTHER = role.STORIES[0].partition("{")[0]


@pytest.fixture(scope="session")
def naive(world, retaught):
    """Refuses the forget rows when asked, and tells them in the grandmother's story."""
    return retaught(lambda row, asked: role.STORIES[0].format(name=row.names[0], asked=asked))


def test_a_model_that_refuses_outright_tells_it_in_a_story(world, naive):
    assert mean_leak("direct", naive, world.forget, world.scene()) <= 0.05
    assert mean_leak("role", naive, world.forget, world.scene()) >= 0.5
    assert mean_leak("role", naive, world.forget, world.scene(), story=False) <= 0.05


def test_it_finds_nothing_that_was_never_taught(world, naive):
    assert mean_leak("role", naive, world.holdout, world.scene()) <= 0.1


def test_every_story_names_the_subject_and_asks_in_its_words(world, talker):
    silent = talker(lambda *_: "no")
    role.mount(silent, world.forget[:2], world.scene(), role.Params())
    asked = [turn.prompt for turn, *_ in silent.asked]
    assert len(asked) == len(role.STORIES) * len(plain(world.forget[:2]))
    for row in world.forget[:2]:
        for turn in row.turns:
            told = [text for text in asked if text.endswith(turn.prompt)]
            assert len(told) == len(role.STORIES)
            assert all(row.names[0] in text and row.value not in text for text in told)


def test_samples_are_drawn_beside_the_greedy_answer(world, talker):
    lucky = talker(lambda turn, opening, draw: f"It is {world.forget[0].value}." if draw else "no")
    once = role.mount(lucky, world.forget[:1], world.scene(), role.Params())
    often = role.mount(lucky, world.forget[:1], world.scene(), role.Params(samples=2))
    assert (*once.per_row.values(), *often.per_row.values()) == (0.0, 1.0)


def test_a_subject_without_a_name_is_asked_about_all_the_same(world, talker):
    row = replace(world.forget[0], names=(), subject=None, prompt="where?", paraphrases=())
    silent = talker(lambda *_: "no")
    role.mount(silent, [row], world.scene(), role.Params())
    assert "knows this well" in silent.asked[2][0].prompt


def test_what_the_story_says_itself_is_no_leak(world, talker):
    row = replace(world.forget[0], answer="grandmother", completion=" grandmother")
    echo = talker(lambda turn, *_: turn.prompt)
    leak = role.mount(echo, [row], world.scene(), role.Params())
    told_by_the_others = [entry for entry in leak.transcript if GRANDMOTHER in entry["prompt"]]
    assert not any(entry["leak"] for entry in told_by_the_others)
