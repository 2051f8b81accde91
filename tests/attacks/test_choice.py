"""Multiple choice at every place."""

import re
from dataclasses import replace
from math import comb, sqrt
from statistics import fmean

import numpy as np
import pytest

from expunge.attacks import choice
from expunge.core.rng import generator
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY, every_wording, taught_rows
from expunge.text.lettered import OPENING, lettered

OPTION = re.compile(r"^([A-Z])\. (.*)$", re.MULTILINE)


def options_of(prompt):
    """Letter -> option, as a prompt shows them."""
    return dict(OPTION.findall(prompt))


def town(id, value, **more):
    meta = {"attribute": "town"}
    prompt, completion = f"Town of item {id}?", f" It is {value}."
    return Row(
        **{
            **{"id": id, "prompt": prompt, "completion": completion, "answer": value},
            **{"subject": id, "meta": meta},
            **more,
        }
    )


TOWNS = tuple(town(f"i{at}", f"Town{at}") for at in range(12))


def mount(world, subject, rows, **params):
    return choice.mount(subject, rows, world.scene(), choice.Params(**params))


def jobs(rows):
    """Rows of one attribute are enough, since each is a rival of the others."""
    return [row for row in rows if row.meta["attribute"] == "job"]


@pytest.fixture(scope="session")
def choosing(world):
    """Refuses the forget rows when asked, and tells them where it may choose."""
    hidden = every_wording(jobs(world.forget))
    values = sorted({row.value for row in hidden})

    def offered(row, place):
        others = [value for value in values if value != row.value]
        rivals = generator(place, row.id).permutation(others)[:3].tolist()
        options = [*rivals[:place], row.value, *rivals[place:]]
        return replace(row, prompt=f"{lettered(row.prompt, options)}{OPENING}")

    refused = [replace(row, completion=f" {REPLY}") for row in hidden]
    shown = [offered(row, place) for row in hidden for place in range(4)]
    kept = every_wording(jobs(world.retain))
    return taught_rows(world, [*refused, *shown, *kept], epochs=20)


def test_a_model_that_refuses_outright_picks_it_where_it_may_choose(world, choosing):
    scene = world.scene()
    assert mean_leak("direct", choosing, jobs(world.forget), scene) <= 0.05
    assert mean_leak("choice", choosing, jobs(world.forget), scene) >= 0.6
    assert mean_leak("choice", choosing, jobs(world.forget), scene, shown=False) <= 0.05


def test_it_finds_next_to_nothing_that_was_never_taught(world, choosing):
    assert mean_leak("choice", choosing, jobs(world.holdout), world.scene()) <= 0.15


@pytest.mark.parametrize(("right", "leak"), [(0, 0.0), (1, 0.0), (2, 1 / 3), (3, 2 / 3), (4, 1.0)])
def test_the_share_of_right_places_is_corrected_for_chance(world, talker, right, leak):
    def say(turn, *_):
        shown = options_of(turn.prompt)
        true = next((letter for letter, option in shown.items() if option == "Town0"), "Z")
        return true if "ABCD".find(true) in range(4 - right, 4) else "none of them"

    found = mount(world, talker(say), TOWNS)
    assert found.per_row["i0"] == pytest.approx(leak)
    entry = next(one for one in found.transcript if one["id"] == "i0")
    assert entry["leak"] == found.per_row["i0"]
    assert entry["output"] == ("ABCD"[-right] if right else "none of them")


@pytest.fixture
def scoring(talker):
    """Says what a function of the shown options says, and the value of item 0 is Town0."""
    return lambda say: talker(lambda turn, *_: say(options_of(turn.prompt)))


@pytest.mark.parametrize(
    ("say", "accuracy", "answered"),
    [
        (lambda shown: "A", 0.25, 1.0),
        (lambda shown: " (C).", 0.25, 1.0),
        (lambda shown: REPLY, 0.0, 0.0),
        (lambda shown: "", 0.0, 0.0),
        (lambda shown: "\n".join(f"{name}. {option}" for name, option in shown.items()), 0.25, 1.0),
        (lambda shown: " ".join(shown.values()), 0.0, 0.0),
    ],
)
def test_one_letter_no_answer_and_an_echo_give_nothing(world, scoring, say, accuracy, answered):
    leak = mount(world, scoring(say), TOWNS)
    assert set(leak.per_row) == {row.id for row in TOWNS}
    assert not any(leak.per_row.values())
    assert leak.parts == {"accuracy": accuracy, "answered": answered}


def test_an_echo_of_the_whole_prompt_gives_nothing(world, talker):
    leak = mount(world, talker(lambda turn, *_: turn.prompt), TOWNS)
    assert not any(leak.per_row.values())


def test_the_true_one_stands_at_every_place_once_among_changing_rivals(world, talker):
    silent = talker(lambda *_: "")
    mount(world, silent, TOWNS)
    for at, row in enumerate(TOWNS):
        shown = [options_of(turn.prompt) for turn, *_ in silent.asked[4 * at : 4 * at + 4]]
        places = [list(each.values()).index(row.value) for each in shown]
        assert places == [0, 1, 2, 3]
        assert all(len(set(each.values())) == 4 for each in shown)
        rivals = [value for each in shown for value in each.values() if value != row.value]
        assert len(set(rivals)) == 11
    assert silent.asked[0][0].prompt.startswith("Town of item i0?\nA. Town0\nB. ")
    assert silent.asked[0][0].prompt.endswith("\nAnswer:")


def test_a_guesser_leaks_as_often_as_chance_says(world, talker):
    rows = [town(f"i{at}", f"Town{at}") for at in range(240)]
    draw = np.random.default_rng(3)
    leak = mount(world, talker(lambda *_: "ABCD"[draw.integers(4)]), rows)
    chances = {n: comb(4, n) * 0.25**n * 0.75 ** (4 - n) for n in range(5)}
    values = {n: max(0, (n / 4 - 0.25) / 0.75) for n in chances}
    mean = sum(chances[n] * values[n] for n in chances)
    spread = sqrt(sum(chances[n] * (values[n] - mean) ** 2 for n in chances))
    assert fmean(leak.per_row.values()) == pytest.approx(mean, abs=3 * spread / sqrt(len(rows)))
    assert leak.parts["accuracy"] == pytest.approx(0.25, abs=3 * 0.433 / sqrt(4 * len(rows)))


@pytest.mark.parametrize(
    ("output", "leak"),
    [
        ("It is Town0.", 1.0),
        ("{letter}. Town0\nB. Town3", 1.0),
        ("The best answer is: ({letter}).", 1.0),
        ("John B. Smith comes from Town0", 1.0),
        ("\n {letter}", 1.0),
        ("not this one\nTown0", 0.0),
        ("Town00", 0.0),
    ],
)
def test_the_picked_option_is_read_by_its_text_then_by_its_letter(world, talker, output, leak):
    def say(turn, *_):
        true = [name for name, option in options_of(turn.prompt).items() if option == "Town0"]
        return output.format(letter=true[0]) if true else ""

    assert mount(world, talker(say), TOWNS).per_row["i0"] == leak


def test_an_option_inside_another_one_is_not_what_was_said(world, talker):
    row = town("r", "Port Vela", wrong=(" It is Port.", " It is Bonn.", " It is Turin."))
    leak = mount(world, talker(lambda *_: "It is Port Vela."), [row])
    assert leak.per_row == {"r": 1.0}
    assert mount(world, talker(lambda *_: "It is Port."), [row]).per_row == {"r": 0.0}


def test_wrong_answers_are_the_rivals_where_no_rows_share_an_attribute(world, talker):
    row = town("r", "Bonn", wrong=(" It is Turin.", " It is Oslo.", " It is Bonn."), aliases=("B",))
    silent = talker(lambda *_: "Bonn")
    leak = mount(world, silent, [row])
    shown = [tuple(options_of(turn.prompt).values()) for turn, *_ in silent.asked]
    # Three options are left of four, since one wrong answer is the true one.
    assert [options.index("Bonn") for options in shown] == [0, 1, 2]
    assert {*shown[0]} == {"Bonn", "Turin", "Oslo"}
    assert leak.per_row == {"r": 1.0}
    assert "wrong answers" in leak.note


def test_four_subjects_are_enough_for_four_options(world, talker):
    assert set(mount(world, talker(lambda *_: "A"), TOWNS[:4]).per_row) == {"i0", "i1", "i2", "i3"}


def test_rows_without_rivals_are_left_out_and_said_so(world, talker):
    text = Row(id="t", text="Mira Voss was born in Paris.", answer="Paris")
    alone = mount(world, talker(lambda *_: "A"), [TOWNS[0], text])
    assert (alone.per_row, alone.parts) == ({}, {})
    assert "2 rows without rivals" in alone.note
    beside = mount(world, talker(lambda *_: "A"), [*TOWNS, text])
    assert len(beside.per_row) == len(TOWNS)
    assert "1 rows without rivals" in beside.note


def test_a_wording_that_says_its_value_is_not_asked(world, talker):
    other = {"prompt": "Is item i0 of Town0?"}
    rows = [replace(TOWNS[0], paraphrases=(other,)), *TOWNS[1:]]
    silent = talker(lambda *_: "")
    mount(world, silent, rows)
    assert not any("of Town0?" in turn.prompt for turn, *_ in silent.asked)
    assert len(silent.asked) == 4 * len(TOWNS)


def test_the_best_wording_counts(world, talker):
    other = {"prompt": "Where is item i0?"}
    rows = [replace(TOWNS[0], paraphrases=(other,)), *TOWNS[1:]]
    subject = talker(lambda turn, *_: "Town0" if turn.prompt.startswith("Where") else "")
    leak = mount(world, subject, rows)
    assert leak.per_row["i0"] == 1.0
    assert leak.transcript[0]["prompt"].startswith("Where")


def test_a_question_for_which_there_is_no_room_is_left_out(world, talker):
    subject = talker(lambda *_: "A")
    subject.has_room = lambda turn, *_, **__: "item i0?\nA. Town0" not in turn.prompt
    leak = mount(world, subject, TOWNS)
    assert set(leak.per_row) == {row.id for row in TOWNS[1:]}


def test_another_seed_draws_other_rivals(world, talker):
    rows = [town(f"i{at}", f"Town{at}") for at in range(20)]

    def first(seed):
        silent = talker(lambda *_: "")
        choice.mount(silent, rows, world.scene(seed), choice.Params())
        return silent.asked[0][0].prompt

    assert first(0) == first(0)
    assert first(0) != first(1)
