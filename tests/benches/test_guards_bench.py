"""The bench of the gate: its world is what it says, and its page says what was measured."""

import argparse
import copy
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benches"))
import guards_page
from guards_world import NAMELESS, World

import guards
from expunge.engine.guarding.rungs import standard


@pytest.fixture(scope="module")
def record():
    given = argparse.Namespace(prompts=100, asked=20, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guards, "LOOKS", 10)
        patch.setattr(guards, "WORDS", 100)
        sizes = [guards.measured(count, given) for count in (10, 40)]
    told = {"rate": 0.01, "prompts": 100, "asked": 20, "command": "c", "seed": 0}
    return {"sizes": sizes, **told, "versions": {"package": "1"}}


def test_no_two_targets_are_the_same_and_no_harmless_prompt_is_about_one():
    world = World(0)
    names = [world.name(number) for number in range(3_000)]
    assert len(set(names)) == len(names)
    own = {question for target in world.targets(0, 2_000) for question in target.questions}
    harmless = {text for told in world.harmless(500, guards.BEYOND).values() for text in told}
    ladder = standard(bytes(32))
    for target in world.targets(0, 2_000):
        ladder.add(target.id, ladder.keys(target))
    assert not own & harmless
    assert not [text for text in harmless if ladder.hits([text])]


def test_questions_are_worded_as_no_target_is():
    world = World(0)
    asked = world.reworded(range(100))
    own = {question for target in world.targets(0, 100) for question in target.questions}
    assert len(asked["no name to go by"]) == 100 // NAMELESS
    assert len(asked["named"]) == len(asked["misspelt"]) == 100 - 100 // NAMELESS
    assert not own & {one.text for told in asked.values() for one in told}
    for one, slipped in zip(asked["named"], asked["misspelt"], strict=True):
        assert world.name(int(one.target[1:])) in one.text
        assert world.name(int(one.target[1:])) not in slipped.text


def test_the_lexical_guard_stops_what_names_a_target_and_nothing_else(record):
    for size in record["sizes"]:
        assert size["pipeline"]["named_stopped"] == 1.0
        assert size["pipeline"]["clean_stopped"] == 0.0
        assert size["pipeline"]["errors"] == 0


def test_names_are_always_found_whatever_the_thresholds(record):
    for size in record["sizes"]:
        for told in size["found"].values():
            assert told["old"]["recall"]["named"]["own"] == 1.0
            assert told["new"]["recall"]["named"]["own"] == 1.0


def test_the_page_says_which_bars_held(record):
    told = guards_page.page(record)
    assert "N = 10 | N = 40 |" in told
    slow = copy.deepcopy(record)
    slow["sizes"][0]["pipeline"]["clean"]["p95"] = 7.0
    (first, *_) = guards_page.bars(slow)
    assert (first[2], first[3]) == ("7.00", False)
    assert "**not held**" in guards_page.page(slow)
