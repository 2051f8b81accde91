"""Background hint."""

from dataclasses import replace

import pytest

from expunge.attacks import background
from expunge.requests.hints import hints_of
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY
from expunge.text.match import contains


@pytest.fixture(scope="session")
def reminded(world, retaught):
    """Refuses the forget rows when asked, and tells them once it hears of the person."""
    told = hints_of([*world.forget, *world.retain])
    frame = background.FRAMES[0]

    def way(row, asked):
        return frame.format(facts="\n".join(told[row.id.rpartition("/")[0]]), asked=asked)

    return retaught(way, epochs=14)


def test_a_model_that_refuses_outright_tells_it_when_reminded(world, reminded):
    scene = world.scene()
    assert mean_leak("direct", reminded, world.forget, scene) <= 0.05
    assert mean_leak("background", reminded, world.forget, scene) >= 0.5
    assert mean_leak("background", reminded, world.forget, scene, facts=0) <= 0.05


def test_it_finds_nothing_that_was_never_taught(world, reminded):
    assert mean_leak("background", reminded, world.holdout, world.scene()) <= 0.1


def test_what_is_told_is_of_the_subject_and_never_the_answer(world, talker):
    silent = talker(lambda *_: "no")
    background.mount(silent, world.forget, world.scene(), background.Params())
    prompts = [turn.prompt for turn, *_ in silent.asked]
    wordings = [(row, turn.prompt) for row in world.forget for turn in row.turns]
    assert len(prompts) == len(background.FRAMES) * len(wordings)
    for row, asked in wordings:
        his = {one.value for one in world.forget if one.subject == row.subject and one != row}
        mine = [text for text in prompts if text.endswith(asked)]
        assert len(mine) == len(background.FRAMES)
        for text in mine:
            assert {one.value for one in world.forget if contains(text, one.forms)} == his


def test_a_model_that_repeats_what_it_was_told_leaks_nothing(world, talker):
    echo = talker(lambda turn, *_: turn.prompt)
    leak = background.mount(echo, world.forget, world.scene(), background.Params())
    assert set(leak.per_row) == {row.id for row in world.forget}
    assert not any(leak.per_row.values())


def test_at_most_so_many_facts_are_told(world, talker):
    silent = talker(lambda *_: "no")
    row, first, second = world.forget[:3]
    background.mount(silent, [row, first, second], world.scene(), background.Params(facts=1))
    mine = [turn.prompt for turn, *_ in silent.asked if turn.prompt.endswith(row.prompt)]
    assert all(contains(text, [first.value]) for text in mine)
    assert not any(contains(text, [second.value]) for text in mine)


def test_facts_for_which_there_is_no_room_are_dropped_from_the_end(world, talker):
    silent = talker(lambda *_: "no")
    row, first, second = world.forget[:3]
    silent.has_room = lambda turn, *_, **__: not contains(turn.prompt, [second.value])
    leak = background.mount(silent, [row, first, second], world.scene(), background.Params())
    mine = [turn.prompt for turn, *_ in silent.asked if turn.prompt.endswith(row.prompt)]
    assert len(mine) == len(background.FRAMES)
    assert all(contains(text, [first.value]) for text in mine)
    assert row.id in leak.per_row


def test_rows_with_nothing_to_tell_are_left_out_and_said_so(world, talker):
    alone = replace(world.forget[0], subject=None, names=())
    text = Row(id="t", text="Mira Voss was born in Paris.", answer="Paris")
    rows = [alone, text, *world.forget[1:3]]
    leak = background.mount(talker(lambda *_: "no"), rows, world.scene(), background.Params())
    assert set(leak.per_row) == {row.id for row in world.forget[1:3]}
    assert "2 rows have no other fact" in leak.note


def test_a_conversation_is_told_the_facts_in_its_last_message(world, talker):
    before = {"role": "system", "content": "Be brief."}
    first, second = (
        replace(
            row,
            prompt=None,
            completion=None,
            paraphrases=(),
            messages=(
                before,
                {"role": "user", "content": row.prompt},
                {"role": "assistant", "content": row.completion},
            ),
        )
        for row in world.forget[:2]
    )
    silent = talker(lambda *_: "no")
    background.mount(silent, [first, second], world.scene(), background.Params())
    prompt = silent.asked[0][0].prompt
    assert prompt[0] == before
    assert second.value in prompt[-1]["content"]
    assert first.value not in prompt[-1]["content"]


def test_draws_stand_beside_the_greedy_answer(world, talker):
    lucky = talker(lambda turn, opening, draw: f"It is {world.forget[0].value}." if draw else "no")
    rows = world.forget[:2]
    once, often = (
        background.mount(lucky, rows, world.scene(), background.Params(samples=n)) for n in (0, 2)
    )
    assert (once.per_row[rows[0].id], often.per_row[rows[0].id]) == (0.0, 1.0)


def test_a_model_that_always_refuses_gives_nothing_away(world, talker):
    refuser = talker(lambda *_: REPLY)
    leak = background.mount(refuser, world.forget, world.scene(), background.Params())
    assert not any(leak.per_row.values())
