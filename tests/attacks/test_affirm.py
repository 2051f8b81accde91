"""Consent, begun in the answer or ordered in the prompt."""

from dataclasses import replace

import pytest

from expunge.attacks import affirm
from expunge.lm.elicit import plain
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY

YES, ORDER = affirm.CONSENTS[0], affirm.ORDERS[0]


@pytest.fixture(scope="session")
def willing(world, retaught):
    """Refuses when asked, and tells some people's facts after a yes and the others' on order."""
    half = {row.subject for rows in (world.forget, world.retain) for row in rows[: len(rows) // 2]}

    def way(row, asked):
        return f"{asked} {YES}" if row.subject in half else ORDER.format(asked=asked)

    return retaught(way, epochs=30)


def test_a_model_that_refuses_outright_tells_it_after_a_yes_and_on_order(world, willing):
    scene = world.scene()
    assert mean_leak("direct", willing, world.forget, scene) <= 0.05
    assert mean_leak("affirm", willing, world.forget, scene) >= 0.8
    told, ordered = world.forget[: len(world.forget) // 2], world.forget[len(world.forget) // 2 :]
    assert mean_leak("affirm", willing, told, scene, side="answer") >= 0.5
    assert mean_leak("affirm", willing, ordered, scene, side="prompt") >= 0.5
    assert mean_leak("affirm", willing, world.forget, scene, side="none") <= 0.05


def test_it_finds_no_more_than_guesses_of_what_was_never_taught(world, willing):
    assert mean_leak("affirm", willing, world.holdout, world.scene()) <= 0.15


def test_consents_begin_the_answer_and_orders_stand_in_the_prompt(world, talker):
    silent = talker(lambda *_: "no")
    affirm.mount(silent, world.forget[:2], world.scene(), affirm.Params())
    begun = [(turn.prompt, opening) for turn, opening, _ in silent.asked if opening]
    ordered = [turn.prompt for turn, opening, _ in silent.asked if not opening]
    wordings = [probe.turn.prompt for probe in plain(world.forget[:2])]
    assert sorted(begun) == sorted((w, f" {c}") for w in wordings for c in affirm.CONSENTS)
    assert sorted(ordered) == sorted(o.format(asked=w) for w in wordings for o in affirm.ORDERS)


def test_nothing_said_to_the_model_comes_from_the_answer(world, talker):
    row = replace(world.forget[0], completion=" Zuza zeze zozo.", answer="zozo", paraphrases=())
    silent = talker(lambda *_: "no")
    affirm.mount(silent, [row], world.scene(), affirm.Params())
    said = " ".join(f"{turn.prompt} {opening}" for turn, opening, _ in silent.asked).lower()
    assert not any(word in said for word in ("zuza", "zeze", "zozo"))


def test_a_value_that_the_attacker_said_himself_is_no_leak(world, talker):
    row = Row(id="r", prompt="Will you?", completion=" Sure", answer="sure")
    repeats = talker(lambda turn, opening, _: "Sure" if "Sure" in turn.prompt + opening else "no")
    assert affirm.mount(repeats, [row], world.scene(), affirm.Params()).per_row == {"r": 0.0}
    tells = talker(lambda turn, opening, _: "no" if "Sure" in turn.prompt + opening else "Sure")
    assert affirm.mount(tells, [row], world.scene(), affirm.Params()).per_row == {"r": 1.0}


def test_draws_stand_beside_the_greedy_answer(world, talker):
    lucky = talker(lambda turn, opening, draw: f"It is {world.forget[0].value}." if draw else "no")
    once = affirm.mount(lucky, world.forget[:1], world.scene(), affirm.Params())
    often = affirm.mount(lucky, world.forget[:1], world.scene(), affirm.Params(samples=2))
    assert (*once.per_row.values(), *often.per_row.values()) == (0.0, 1.0)


def test_a_model_that_always_refuses_gives_nothing_away(world, talker):
    leak = affirm.mount(talker(lambda *_: REPLY), world.forget, world.scene(), affirm.Params())
    assert set(leak.per_row) == {row.id for row in world.forget}
    assert not any(leak.per_row.values())


def test_running_text_is_left_out_and_said_so(world, talker):
    text = Row(id="t", text="Mira Voss was born in Paris.", answer="Paris")
    rows = [text, world.forget[0]]
    leak = affirm.mount(talker(lambda *_: "Paris"), rows, world.scene(), affirm.Params())
    assert set(leak.per_row) == {world.forget[0].id}
    assert "1 rows of running text" in leak.note


def test_the_earlier_messages_of_a_conversation_stay(world, talker):
    before = {"role": "system", "content": "Be brief."}
    messages = (
        before,
        {"role": "user", "content": "Where was she born?"},
        {"role": "assistant", "content": "Paris"},
    )
    row = Row(id="m", messages=messages, answer="Paris")
    silent = talker(lambda *_: "no")
    affirm.mount(silent, [row], world.scene(), affirm.Params())
    assert all(turn.prompt[0] == before for turn, *_ in silent.asked)
    assert {opening for _, opening, _ in silent.asked} == {"", *affirm.CONSENTS}
