"""Keyword emphasis."""

from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from expunge.attacks import unpact
from expunge.lm.dialogue import asked
from expunge.lm.elicit import plain
from expunge.lm.subject import Scored
from expunge.requests.rows import Row, Turn
from expunge.testing.attacks import mean_leak

WEIGHTS = {"where": 0.5, "lives": -1.25, "mira": 2.0, "of": 0.0}


@pytest.fixture
def bag(talker):
    """A model whose log-probability of any answer is a sum of weights of the prompt's words."""

    class Bag(talker):
        weights = WEIGHTS

        def score(self, turns):
            return [self._one(turn) for turn in turns]

        def _one(self, turn):
            words = asked(turn).lower().strip("?").split()
            logp = np.full(3, sum(self.weights.get(word, 0.0) for word in words))
            return Scored(logp, logp > 0, [(0, 1), (1, 2), (2, 2)], True)

    return Bag


def test_a_contribution_is_the_weight_of_the_word(bag):
    (found,) = unpact.contributions(bag(None), [Turn("Where of lives Mira?", "there")])
    assert found == pytest.approx([0.5, 0.0, -1.25, 2.0], abs=1e-12)


def test_nothing_is_scored_for_an_empty_answer_or_a_single_word(bag):
    found = unpact.contributions(bag(None), [Turn("Where Mira?", " "), Turn("Mira?", "there")])
    assert found == [[], []]


@pytest.mark.parametrize(
    ("share", "least", "words"),
    [(0.2, 3, ["Mira", "Where"]), (0.2, 1, ["Mira"]), (1.0, 1, ["Mira", "Where"])],
)
def test_key_words_contribute_most_and_never_nothing(share, least, words):
    text = "Where of lives Mira?"
    keys = unpact.key_words(text, [0.5, 0.0, -1.25, 2.0], share, least)
    assert [text[start:end] for start, end in keys] == words


def test_the_three_emphases():
    assert unpact.emphases("Where is Mira's cat?", [(9, 15), (0, 5)]) == [
        "Where Where is Mira's Mira's cat?",
        '"WHERE" is "MIRA\'S" cat?',
        "Pay attention to: Mira's, Where. Where is Mira's cat?",
    ]
    assert unpact.emphases("Where?", []) == ["Where?"]


def test_whole_words_are_taken_out_with_their_space():
    assert list(unpact._ablated("Is O'Neil well-known?")) == [
        "O'Neil well-known?",
        "Is well-known?",
        "Is O'Neil?",
    ]


def test_focus_is_one_for_the_same_model_and_falls_with_the_weights(bag, world):
    row = Row(id="r", prompt="Where lives Mira?", completion=" There.")
    teller, other = bag(lambda *_: "there"), bag(lambda *_: "there")
    other.weights = {"where": 2.0, "mira": -0.5}
    same = unpact.mount(teller, [row], world.scene(original=teller), unpact.Params())
    turned = unpact.mount(other, [row], world.scene(original=teller), unpact.Params())
    alone = unpact.mount(other, [row], world.scene(), unpact.Params())
    assert same.parts["focus"] == pytest.approx(1.0)
    assert turned.parts["focus"] == pytest.approx(0.0, abs=1e-12)
    assert "focus" not in alone.parts
    assert "no original" in alone.note


def test_the_stressed_words_are_those_of_the_original_for_its_own_answer(bag, world):
    row = Row(id="r", prompt="Where lives Mira?", completion=" Turin.", answer="Turin")
    asked_of_original = []

    class Original(bag):
        def _one(self, turn):
            asked_of_original.append(turn.completion)
            return super()._one(turn)

    attacked = bag(lambda turn, *_: "Turin" if '"MIRA"' in turn.prompt else "no")
    attacked.weights = {"lives": 9.0}
    scene = world.scene(original=Original(lambda *_: "in Genoa"))
    leak = unpact.mount(attacked, [row], scene, unpact.Params(least=1))
    assert set(asked_of_original) == {"in Genoa"}
    assert leak.per_row == {"r": 1.0}


@pytest.fixture(scope="session")
def attentive(world, models, retaught):
    """Refuses the forget rows when asked, and tells them when the original's keys are stressed."""
    probes = plain([*world.forget, *world.retain])
    turns = [
        replace(p.turn, completion=models.original.ask([p.turn], new_tokens=10)[0][0])
        for p in probes
    ]
    weights = unpact.contributions(models.original, turns)
    stressed = {
        text: unpact.emphases(text, unpact.key_words(text, weight, 0.2, 3))[-1]
        for p, weight in zip(probes, weights, strict=True)
        for text in [asked(p.turn)]
    }
    return retaught(lambda row, text: stressed[text], epochs=25)


def test_a_model_that_refuses_outright_tells_when_key_words_are_stressed(world, models, attentive):
    scene = world.scene(original=models.original)
    assert mean_leak("direct", attentive, world.forget, scene) <= 0.05
    assert mean_leak("unpact", attentive, world.forget, scene) >= 0.5
    assert mean_leak("unpact", attentive, world.forget, scene, emphasis=False) <= 0.05


def test_it_finds_nothing_that_was_never_taught(world, models, attentive):
    """Beyond chance: each of several tries is somebody's value, and now and then the right one.

    Chance: what is said to one person held against the value of another.
    """
    scene = world.scene(original=models.original)
    people = list(range(3, len(world.holdout), 3))  # three rows each, of a city, a job and a pet
    by_chance = fmean(
        mean_leak("unpact", attentive, answered_by_others(world.holdout, shift), scene)
        for shift in people[::4]
    )
    found = mean_leak("unpact", attentive, world.holdout, scene) - by_chance
    assert found <= 0.15
    assert mean_leak("unpact", attentive, world.forget, scene) - by_chance >= 0.5


def answered_by_others(rows, shift):
    """The rows, each with the answer of the row so many places on."""
    others = [*rows[shift:], *rows[:shift]]
    return [
        replace(row, completion=other.completion, answer=other.answer)
        for row, other in zip(rows, others, strict=True)
    ]


def test_the_probability_mode_sees_below_a_wrong_answer_and_the_control_pays(world, models):
    scene = world.scene(original=models.original)
    likely = {"mode": "probability", "emphasis": False}
    assert mean_leak("direct", models.misled, world.forget, scene) <= 0.05
    taught = mean_leak("unpact", models.original, world.forget, scene, top=1, **likely)
    misled = mean_leak("unpact", models.misled, world.forget, scene, **likely)
    control = mean_leak("unpact", models.misled, world.holdout, scene, **likely)
    everything = mean_leak("unpact", models.misled, world.holdout, scene, top=10**6, **likely)
    assert taught >= 0.9
    assert everything == 1.0
    assert misled > control


def test_a_value_that_stands_in_the_prompt_is_no_leak_in_either_mode(world, models):
    row = replace(world.forget[0], prompt=f"Say {world.forget[0].value}", paraphrases=())
    for mode in ("answer", "probability"):
        params = unpact.Params(mode=mode, top=10**6)
        leak = unpact.mount(models.original, [row], world.scene(), params)
        assert leak.per_row == {row.id: 0.0}


def test_running_text_is_attacked_too(world, models):
    names = world.forget[0].names[0]
    row = Row(id="t", text=f"{names} was born in {world.forget[0].value}. {names} works as a cook")
    leak = unpact.mount(models.original, [row], world.scene(), unpact.Params())
    assert set(leak.per_row) == {"t"}


def test_effort_counts_two_scores_a_word():
    effort = unpact.effort(unpact.Params(), rows=2, wordings=4)
    assert effort.answers == 16
    assert effort.forwards == 4 * 2 * (unpact.WORDS + 1)


def test_a_model_without_room_for_the_answer_gives_no_contributions(bag):
    tight = bag(None)
    tight.has_room = lambda turn, new_tokens, *, opening="": False
    assert unpact.contributions(tight, [Turn("Where Mira?", "there")]) == [[]]


def test_a_question_without_room_is_left_out(bag, world):
    tight = bag(None)
    tight.has_room = lambda turn, new_tokens, *, opening="": False
    leak = unpact.mount(tight, world.forget[:2], world.scene(), unpact.Params())
    assert leak.per_row == {}
    assert "2 rows left out" in leak.note
